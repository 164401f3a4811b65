"""What the resolver is told: flags, environment variables and a file, in this order of precedence.

All three have the same settings. The file is an INI file with one section, ``[resolver]``: ``key = value``, several values one
to a line, each indented; whole-line comments begin with ``#`` or ``;``. It is read by hand because configparser would take a
quarter of the time that a warm answer takes. Relative paths in the file are relative to the file.
"""

from __future__ import annotations

import os

from publisher.resolver.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Given = Mapping[str, Sequence[str]]

LISTS = ("manifest", "origin", "public-key")
SINGLES = ("repository", "repository-name", "cache", "form", "arch")
SETTINGS = (*LISTS, *SINGLES)
AUTO, SANDBOX, SIF = "auto", "sandbox", "sif"
FORMS = (AUTO, SANDBOX, SIF)
_PATHS = ("manifest", "origin", "public-key", "repository", "cache")
_VARIABLE = "IMAGE_RESOLVER_"
_SECTION = "[resolver]"


class Settings:
    """Settings that are complete and fit together.

    Attributes:
        name: the repository's name, which its manifest must carry.
        repository: the directory where it is mounted, absolute.
        roots: what paths of images in it may begin with.
        manifests: places of the manifest, directories or URLs, in order.
        origins: places of SIFs, directories or URLs, in order.
        cache: directory for SIFs and copies of the manifest, absolute; None for no cache.
        keys: files and directories of trusted keys.
        form: one of :data:`FORMS`.
        arch: architecture in Go's words.
    """

    __slots__ = ("arch", "cache", "form", "keys", "manifests", "name", "origins", "repository", "roots")

    def __init__(self, given: Given, arch: str) -> None:
        """Check and complete what was given; ``arch`` is this machine's.

        Raises:
            UsageError: something is missing or has no such value.
        """
        directory = _single(given, "repository")
        self.name = _single(given, "repository-name") or os.path.basename((directory or "").rstrip("/"))
        if not self.name or "/" in self.name or self.name in (".", "..") or not self.name.isprintable():
            raise UsageError("which repository's manifest is to be trusted?", hint="--repository DIR, or --repository-name NAME")
        cvmfs = f"/cvmfs/{self.name}"
        self.repository = os.path.abspath(directory or cvmfs)
        self.roots = tuple(dict.fromkeys((cvmfs, self.repository, (directory or cvmfs).rstrip("/"))))
        self.origins = tuple(given.get("origin", ()))
        standard = (f"{self.repository}/.publisher", *map(_manifest_of, self.origins))
        self.manifests = tuple(given.get("manifest", ())) or standard
        cache = _single(given, "cache")
        self.cache = None if cache is None else os.path.abspath(cache)
        self.keys = tuple(given.get("public-key", ()))
        self.form = _single(given, "form") or AUTO
        if self.form not in FORMS:
            raise UsageError(f"--form {self.form!r} is none of {', '.join(FORMS)}")
        self.arch = _single(given, "arch") or arch


def gather(flags: Given, environ: Mapping[str, str], file: str | None) -> dict[str, list[str]]:
    """The settings from all three places; a setting of a higher place replaces the lower one's as a whole.

    Args:
        flags: setting -> values, from the command line.
        environ: ``IMAGE_RESOLVER_PUBLIC_KEY`` and so on; values of lists are separated by blanks.
        file: the configuration file's path, None for none (then ``IMAGE_RESOLVER_CONFIG`` counts).

    Raises:
        UsageError: the file cannot be read, or says something unknown.
    """
    gathered: dict[str, list[str]] = {}
    file = file or environ.get(f"{_VARIABLE}CONFIG")
    if file:
        gathered.update(_from_file(file))
    for name in SETTINGS:
        value = environ.get(_VARIABLE + name.upper().replace("-", "_"))
        if value:
            gathered[name] = value.split() if name in LISTS else [value]
    gathered.update({name: list(values) for name, values in flags.items()})
    return gathered


def _single(given: Given, name: str) -> str | None:
    values = given.get(name) or (None,)
    if len(values) > 1:
        raise UsageError(f"{name} has {len(values)} values, and can have one")
    return values[0]


def _manifest_of(origin: str) -> str:
    """The manifest's place in an origin; a URL's query stays at the end."""
    base, mark, query = origin.partition("?") if "://" in origin else (origin, "", "")
    return f"{base.rstrip('/')}/manifest{mark}{query}"


def _from_file(path: str) -> dict[str, list[str]]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the configuration {path}: {error}") from None
    found: dict[str, list[str]] = {}
    values: list[str] | None = None
    in_section = False
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith(("#", ";")):
            continue
        if text.startswith("["):
            if text != _SECTION:
                raise UsageError(f"{path}, line {number}: {text} is no section of it", hint=f"there is {_SECTION}")
            in_section = True
        elif line[0].isspace() and values is not None:
            values.append(text)
        else:
            name, values = _setting(text, in_section, f"{path}, line {number}", found)
            found[name] = values
    return {name: [_beside(path, name, value) for value in values] for name, values in found.items()}


def _setting(text: str, in_section: bool, where: str, found: Mapping[str, object]) -> tuple[str, list[str]]:
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not in_section:
        raise UsageError(f"{where}: neither a setting nor in {_SECTION}: {text}")
    if name not in SETTINGS:
        raise UsageError(f"{where}: unknown setting {name!r}", hint=f"there are: {', '.join(SETTINGS)}")
    if name in found:
        raise UsageError(f"{where}: {name} is there twice")
    return name, [value] if value else []


def _beside(file: str, name: str, value: str) -> str:
    """A value of the file; a relative path made relative to the file."""
    if name not in _PATHS or "://" in value:
        return value
    return os.path.join(os.path.dirname(os.path.abspath(file)), value)
