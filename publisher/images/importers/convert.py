"""Conversion of other tools' lists to images.yaml: the list of cvmfs-singularity-sync, and recipes of ducc.

An imported entry keeps its CVMFS name and its reference. An entry that cannot be imported is reported with its line and the
reason; no entry changes its meaning silently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from publisher.errors import ListError, UsageError
from publisher.images import reader
from publisher.images.importers import ducc_recipe, singularity_sync
from publisher.system import yamlfile

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.images.importers.draft import Draft

Form = Literal["auto", "docker-images", "recipe"]
FORMS: tuple[Form, ...] = ("auto", "docker-images", "recipe")


class Imported(NamedTuple):
    """The result of an import.

    Attributes:
        text: the text of an images.yaml.
        problems: entries that were not imported or have changed, as ``FILE:LINE: text``, by line.
    """

    text: str
    problems: list[str]


def load(path: Path, form: Form = "auto") -> Imported:
    """Return the list at ``path``, converted to images.yaml.

    Raises:
        UsageError: the file cannot be read, or nothing in it can be imported.
        ListError: the recipe is not valid YAML or not a recipe of ducc.
    """
    try:
        content = yamlfile.read(path)
    except OSError as error:
        raise UsageError(f"the list {path} cannot be read: {error.strerror}") from None
    return convert(content, str(path), form)


def convert(content: bytes, file: str, form: Form = "auto") -> Imported:
    """Return a list's content, converted to images.yaml. Raises as :func:`load`.

    Args:
        content: the file's bytes.
        file: the file's name, for messages.
        form: the format of the file; ``auto`` detects it.
    """
    if len(content) > yamlfile.LARGEST:
        raise UsageError(f"{file} is too large: more than {yamlfile.LARGEST} bytes")
    if form == "auto":
        form = "recipe" if ducc_recipe.is_recipe(content) else "docker-images"
    draft = ducc_recipe.read(content, file) if form == "recipe" else singularity_sync.read(_text(content, file))
    problems = yamlfile.format_problems(file, [*draft.problems, *draft.remove_contradictions()])
    if not draft.has_images:
        raise ListError([*problems, f"{file}:1: none of its images can be imported"], file)
    return Imported(_render(draft), problems)


def save(text: str, path: Path) -> None:
    """Write a new list to a file that does not exist yet.

    Raises:
        UsageError: the file already exists or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} already exists and is not overwritten", hint="choose another --output") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _text(content: bytes, file: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}:{line}: byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8") from None


def _render(draft: Draft) -> str:
    """Return the draft's text after checking that it is a valid list."""
    text = draft.to_text()
    reader.parse(text.encode(), "the new list", draft.name_template)
    return text
