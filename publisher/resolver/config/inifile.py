"""The configuration file: INI with one section, ``[resolver]``.

``key = value``, several values one to a line, each indented; whole-line comments begin with ``#`` or ``;``. Read by hand because
configparser would take a quarter of the time that a warm answer takes.
"""

from __future__ import annotations

from publisher.resolver.errors import ResolverUsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Mapping

_SECTION = "[resolver]"


def read(path: str, known: Container[str]) -> dict[str, list[str]]:
    """The file's settings -> their values.

    Raises:
        ResolverUsageError: it cannot be read, or says something that is not ``known``; the reason has the line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError) as error:
        raise ResolverUsageError(f"cannot read the configuration {path}: {error}") from None
    found: dict[str, list[str]] = {}
    values: list[str] | None = None
    in_section = False
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith(("#", ";")):
            continue
        if text.startswith("["):
            if text != _SECTION:
                raise ResolverUsageError(f"{path}, line {number}: {text} is no section of it", hint=f"there is {_SECTION}")
            in_section = True
        elif line[0].isspace() and values is not None:
            values.append(text)
        else:
            name, values = _setting(text, in_section, f"{path}, line {number}", found)
            if name not in known:
                raise ResolverUsageError(
                    f"{path}, line {number}: unknown setting {name!r}", hint="image-resolver --help has them all"
                )
            found[name] = values
    return found


def _setting(text: str, in_section: bool, where: str, found: Mapping[str, object]) -> tuple[str, list[str]]:
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not in_section:
        raise ResolverUsageError(f"{where}: neither a setting nor in {_SECTION}: {text}")
    if name in found:
        raise ResolverUsageError(f"{where}: {name} is there twice")
    return name, [value] if value else []
