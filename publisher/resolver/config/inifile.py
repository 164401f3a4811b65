"""The configuration file: INI with the one section ``[resolver]``.

Each setting is ``key = value``; further values of a list follow one to an indented line. Whole-line comments begin with ``#`` or
``;``. The file is parsed by hand because configparser would take a quarter of the time of a warm answer.
"""

from __future__ import annotations

from publisher.contract.errors import os_reason
from publisher.resolver.errors import ResolverUsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_SECTION = "[resolver]"


def read(path: str, known: Collection[str]) -> dict[str, list[str]]:
    """Read a configuration file and return its settings: name -> values.

    Args:
        path: the file.
        known: names of the settings that exist.

    Raises:
        ResolverUsageError: the file cannot be read or has an error; the message has the line number.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError) as error:
        raise ResolverUsageError(f"cannot read the configuration {path}: {os_reason(error, path)}") from None
    settings: dict[str, list[str]] = {}
    values: list[str] | None = None
    in_section = False
    for number, line in enumerate(lines, 1):
        text, where = line.strip(), f"{path}, line {number}"
        if not text or text.startswith(("#", ";")):
            continue
        if text.startswith("["):
            if text != _SECTION:
                raise ResolverUsageError(f"{where}: unknown section {text}", hint=f"the only section is {_SECTION}")
            in_section = True
        elif line[0].isspace() and values is not None:
            values.append(text)
        else:
            name, values = _parse_setting(text, in_section, where, settings)
            if name not in known:
                from publisher.resolver.config.similar import similar_hint  # noqa: PLC0415 - only mistakes need it

                hint = similar_hint(name, known, "image-resolver --help lists all settings")
                raise ResolverUsageError(f"{where}: unknown setting {name!r}", hint=hint)
            settings[name] = values
    return settings


def _parse_setting(text: str, in_section: bool, where: str, settings: Mapping[str, object]) -> tuple[str, list[str]]:
    """Return the name and the values in a line ``key = value``."""
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals:
        raise ResolverUsageError(f"{where}: not a setting: {text}", hint="settings are lines with key = value")
    if not in_section:
        raise ResolverUsageError(f"{where}: {name} is outside the section {_SECTION}")
    if name in settings:
        raise ResolverUsageError(f"{where}: {name} is set twice")
    return name, [value] if value else []
