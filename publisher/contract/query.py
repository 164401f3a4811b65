"""From a text for an image, in any spelling that users have, to the keys under which the manifest may have it. Pure.

Execution points and ``publisher status`` accept the same spellings. A reference with ``docker://`` is bound to its registry:
``docker://htc/rocky:9`` is Docker Hub's image, and never an image of the same name in another registry.
"""

from __future__ import annotations

from publisher.contract.errors import InvalidReferenceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_DOCKER, _DIGEST = "docker://", "sha256:"
_IMAGES, _ARCHITECTURES = ".images/", ".arch/"


class ImageQuery:
    """A parsed text for an image.

    Attributes:
        text: the text of the user.
        keys: keys to look up in the manifest, the most likely one first.
        arch: the architecture that the text names, else None.
        path: the text as a path relative to the repository, None if it is not a path.
    """

    __slots__ = ("arch", "keys", "path", "text")

    def __init__(self, text: str, keys: Sequence[str], arch: str | None = None, path: str | None = None) -> None:
        self.text = text
        self.keys = tuple(keys)
        self.arch = arch
        self.path = path


def parse_text(text: str, roots: Sequence[str]) -> ImageQuery | None:
    """Return what a text may stand for; None for a path outside the repository.

    Args:
        text: ``/cvmfs/<repository>/htc/rocky:9`` (or below any other of ``roots``; a sandbox or a path in ``.arch/`` as well),
            ``htc/rocky:9``, ``docker://<registry>/htc/rocky:9``, the same without ``docker://``, or ``sha256:<64 hex digits>``.
        roots: directories at which the repository is mounted.

    Raises:
        InvalidReferenceError: the text is none of these, or has ``..``, so that only a file system knows where it leads.
    """
    if not text or not text.isprintable():
        raise InvalidReferenceError(f"{text!r} is not a valid image name")
    if text.startswith(_DOCKER):
        return ImageQuery(text, [_reference_key(text)])
    if text.startswith(_DIGEST):
        return ImageQuery(text, [text])
    path = _relative_path(text, roots)
    if path is not None and ".." in path.split("/"):
        raise InvalidReferenceError(f"the path {text!r} has '..' in it", hint="write the path without it")
    if path is not None:
        return _parse_path(text, path)
    if text.startswith(("/", "./", "../")):
        return None
    return ImageQuery(text, _name_keys(text))


def is_plain_path(text: str, roots: Sequence[str]) -> bool:
    """Return whether a text is one of the roots or a path below it, without ``..``."""
    path = _relative_path(f"{text}/-", roots)
    return path is not None and ".." not in path.split("/")


def _relative_path(text: str, roots: Sequence[str]) -> str | None:
    """Return the text as a path relative to one of the roots, without redundant slashes and dots, or None."""
    path = "/".join(part for index, part in enumerate(text.split("/")) if part not in ("", ".") or index == 0)
    for root in roots:
        if path.startswith(f"{root}/"):
            return path[len(root) + 1 :]
    return None


def _parse_path(text: str, path: str) -> ImageQuery:
    """Return the query for a path in the repository."""
    if path.startswith(_IMAGES):
        return ImageQuery(text, [path], path=path)
    if path.startswith(_ARCHITECTURES):
        arch, name = _split_architecture(path[len(_ARCHITECTURES) :])
        return ImageQuery(text, [_with_tag(name)], arch=arch, path=path)
    return ImageQuery(text, [_with_tag(path)], path=path)


def _split_architecture(path: str) -> tuple[str, str]:
    """Split ``arm64/htc/rocky:9`` or ``arm/v7/htc/rocky:9`` into architecture and name; a variant is ``v`` and a number."""
    arch, _, name = path.partition("/")
    variant, slash, rest = name.partition("/")
    if slash and variant[:1] == "v" and variant[1:].isdigit():
        return f"{arch}/{variant}", rest
    return arch, name


def _name_keys(text: str) -> list[str]:
    """Return the keys of a text that is a CVMFS name or a reference. An operator's template gives names any form."""
    keys = [] if "@" in text else [_with_tag(text)]
    if "/" not in text and keys:
        keys.append(f"library/{keys[0]}")
    try:
        keys.append(_reference_key(text))
    except InvalidReferenceError:
        if not keys:
            raise
    return keys


def _reference_key(text: str) -> str:
    """Return the key of a reference: its digest, else registry, repository and tag. Raise InvalidReferenceError."""
    from publisher.contract import reference  # noqa: PLC0415 - its patterns cost a millisecond, and most jobs name a path

    parsed = reference.parse(text)
    return parsed.digest or f"{_DOCKER}{parsed}"


def _with_tag(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
