"""Lists of other tools into images.yaml: the list of cvmfs-singularity-sync, and recipes of ducc.

An entry is written with the CVMFS name and the source that it had there, or it is told with its line and the reason; nothing
is taken for something else silently.
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
    """The text of an images.yaml, and what there is to tell: ``FILE:LINE: text``, by line."""

    text: str
    told: list[str]


def load(path: Path, form: Form = "auto") -> Imported:
    """The list at ``path`` as images.yaml.

    Raises:
        UsageError: the file cannot be read, or nothing in it can be imported.
        ListError: a recipe that is no YAML, or none that ducc would take.
    """
    try:
        content = yamlfile.read(path)
    except OSError as error:
        raise UsageError(f"the list {path} cannot be read: {error.strerror}") from None
    return convert(content, str(path), form)


def convert(content: bytes, file: str, form: Form = "auto") -> Imported:
    """As :func:`load`, of the file's bytes; ``file`` is its name, for messages."""
    if len(content) > yamlfile.LARGEST:
        raise UsageError(f"{file} has more than {yamlfile.LARGEST} bytes; nothing that long is read")
    if form == "auto":
        form = "recipe" if ducc_recipe.looks_like_one(content) else "docker-images"
    draft = ducc_recipe.read(content, file) if form == "recipe" else singularity_sync.read(_text(content, file))
    told = yamlfile.lines(file, [*draft.problems, *draft.contradictions()])
    if not draft.has_images:
        raise ListError([*told, f"{file}:1: nothing in it can be imported"], file)
    return Imported(_written(draft), told)


def save(text: str, path: Path) -> None:
    """Write a new list.

    Raises:
        UsageError: the file is there already, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already", hint="it is not overwritten; give another --output") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _text(content: bytes, file: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}:{line}: byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8") from None


def _written(draft: Draft) -> str:
    """The draft's text; what cannot be read back is not handed out."""
    text = draft.text()
    reader.parse(text.encode(), "the new list", draft.name_template)
    return text
