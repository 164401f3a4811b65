"""Loading of settings: flags override environment variables, which override publisher.yaml, which overrides the defaults.

Each source is checked by itself, and the problems of all sources are reported together.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from publisher.errors import ListError, UsageError
from publisher.settings.settings import ROOT_STATE, PublisherSettings
from publisher.settings.targets import CvmfsTarget
from publisher.system import yamlfile
from publisher.system.ownership import is_own_file
from publisher.targets.pelican.federation.address import OriginAddress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FILE_NAME = "publisher.yaml"
"""The configuration that is read if no other is named: that of the current directory."""
_PREFIX = "PUBLISHER_"
_CONFIG = "config"
_SECRETS = ("key", "token_key", "token_file", "removal_token_file", "watch_secrets")
_log = logging.getLogger(__name__)


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], *, cwd: Path | None = None, euid: int | None = None
) -> PublisherSettings:
    """Return the settings of a run.

    Args:
        flags: values by key of :class:`PublisherSettings` (``insecure_registry`` is a key), and the file ``config``. None and
            () are ignored. Without a file, ``publisher.yaml`` in the current directory is read, if there is one.
        environ: environment variables: ``PUBLISHER_*`` (empty ones are ignored), HOME and XDG_STATE_HOME.
        cwd: directory at which relative paths in flags and variables start; None for the current one. Relative paths in the
            file start at the file's directory.
        euid: user id that decides about the default state directory; None for this process's.

    Raises:
        UsageError: the file cannot be read or is another account's, or there is no default for the state directory.
        ListError: settings are not valid; it has the problems of all sources.
    """
    cwd = Path.cwd() if cwd is None else cwd
    context = {"base": cwd, "home": environ.get("HOME")}
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    variables = {name: value for name, value in environ.items() if name.startswith(_PREFIX) and value}
    path = given.pop(_CONFIG, variables.pop(_variable_name(_CONFIG), None)) or _own_file(cwd)
    variables = {name.removeprefix(_PREFIX).lower(): value for name, value in variables.items()}

    values, problems = ({}, []) if path is None else _load_file(cwd / str(path), context)
    for source, spell in ((variables, _variable_name), (given, _flag_name)):
        valid, wrong = _load_words(source, spell, context)
        values |= valid
        problems += wrong
    values = {"images": cwd / "images.yaml"} | values
    if "state" not in values and not problems:
        values["state"] = _default_state(environ, os.geteuid() if euid is None else euid)
    problems += _exposed_paths(values)
    if problems:
        raise ListError(problems, "the configuration")
    _log.debug("settings other than defaults: %s", ", ".join(sorted(values)))
    return PublisherSettings().model_copy(update=values)


def _own_file(cwd: Path) -> str | None:
    """Return the name of the current directory's publisher.yaml, None if there is none.

    Raises:
        UsageError: another account could have written it; nobody has asked for this file.
    """
    path = cwd / FILE_NAME
    if not path.exists():
        return None
    if not is_own_file(path):
        hint = f"if it is yours, give --config {path}, or correct its owner and mode"
        raise UsageError(f"{path} is not read without being named: another account owns it or may write to it", hint=hint)
    return FILE_NAME


def _load_file(path: Path, context: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the valid values of publisher.yaml by field, and its problems as ``FILE:LINE: text``."""
    _log.info("reading the configuration %s", path)
    try:
        content = yamlfile.read(path)
    except OSError as error:
        raise UsageError(f"the configuration {path} cannot be read: {error.strerror}") from None
    root, problems = yamlfile.parse(content)
    settings = None
    if root is not None:
        settings, wrong = yamlfile.validate(PublisherSettings, root, context | {"base": path.parent})
        problems += wrong
    return ({} if settings is None else _set_values(settings)), yamlfile.format_problems(str(path), problems)


def _load_words(
    source: Mapping[str, object], spell: Callable[[str], str], context: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the valid values of flags or variables by field, and their problems; ``spell`` turns a key into its name there."""
    try:
        return _set_values(PublisherSettings.model_validate(source, context=context)), []
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            name = spell(str(detail["loc"][0]))
            if detail["type"] == "extra_forbidden":
                similar = yamlfile.closest(
                    name, [spell(field.alias or key) for key, field in PublisherSettings.model_fields.items()]
                )
                problems.append(f"{name}: there is no such setting" + ("" if similar is None else f"; write {similar}"))
            else:
                problems.append(f"{name}: {yamlfile.explain(detail)}")
        return {}, problems


def _set_values(settings: PublisherSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def _variable_name(key: str) -> str:
    return _PREFIX + key.upper()


def _flag_name(key: str) -> str:
    return "--" + key.replace("_", "-")


def _default_state(environ: Mapping[str, str], euid: int) -> Path:
    """Return root's state directory, or another user's according to the XDG base directory specification."""
    if euid == 0:
        return Path(ROOT_STATE)
    parent = environ.get("XDG_STATE_HOME") or (f"{environ['HOME']}/.local/state" if environ.get("HOME") else "")
    if not Path(parent).is_absolute():
        raise UsageError("there is no home directory for the state directory", hint="give --state DIR")
    return Path(parent) / Path(ROOT_STATE).name


def _exposed_paths(values: Mapping[str, Any]) -> list[str]:
    """Return a problem for each path that lies inside the repository or the origin, where everybody could read it."""
    given = {name: values[name] for name in ("repository", "origin", "state", *_SECRETS) if values.get(name)}
    given = {name: value for name, value in given.items() if not isinstance(value, OriginAddress)}
    paths = {name: value.mount if isinstance(value, CvmfsTarget) else value for name, value in given.items()}
    paths = {name: value for name, value in paths.items() if isinstance(value, Path)}
    pairs = [(inner, outer) for outer in ("repository", "origin") for inner in paths if outer in paths and inner != outer]
    return [
        f"{inner}: {given[inner]} lies inside the {outer} {given[outer]}, which everybody can read; choose another directory"
        for inner, outer in pairs
        if paths[inner].is_relative_to(paths[outer])
    ]
