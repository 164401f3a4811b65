"""What ``docs/ep.md`` and ``docs/ep-reference.md`` say and a program can check."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from publisher.resolver import cli
from publisher.resolver.config import settings as config
from publisher.resolver.config.commandline import CommandLine
from publisher.resolver.hook import statuses
from publisher.resolver.host import commands
from publisher.resolver.system.notes import Warnings
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

DOCUMENT = "".join((ROOT / "docs" / name).read_text() for name in ("ep.md", "ep-reference.md"))
ATTRIBUTES = {"HasImageResolver", "HasSIF", "ImageResolverDefaultImage", "ImageResolverProblems"}


def status_table() -> str:
    """Return the table of statuses as the document must have it."""
    rows = [f"{code} | `{name}` | {who} | {means} | {mend}" for code, name, who, means, mend in statuses.TABLE]
    return "\n".join(f"| {row} |" for row in rows)


def settings_table() -> str:
    """Return the table of settings as the document must have it."""
    values = {name: kind.replace("|", " or ") + ", several" * many for name, kind, many, _, _ in config.TABLE}
    rows = [f"`{name}` | {values[name]} | {default} | {meaning}" for name, _, _, default, meaning in config.TABLE]
    return "\n".join(f"| {row} |" for row in ["Setting | Value | Default | Meaning", *rows]).replace(
        " |\n", " |\n|---|---|---|---|\n", 1
    )


def test_the_table_of_statuses_is_current() -> None:
    assert status_table() in DOCUMENT, f"it should be\n{status_table()}"


def test_the_table_of_settings_is_current() -> None:
    assert settings_table() in DOCUMENT, f"it should be\n{settings_table()}"


def test_every_command_and_flag_in_it_is_there() -> None:
    for command, rest in re.findall(r"image-resolver(?:\.pyz)? ([a-z][a-z-]+)([^`\n]*)", DOCUMENT):
        assert command in {*cli.COMMANDS, *cli.HOOKS}
        assert set(re.findall(r"--([a-z][a-z-]+)", rest)) <= {*config.SETTINGS, "config", "json"}


def test_every_attribute_that_a_machine_gets_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_RESOLVER_CACHE", str(tmp_path / "cache"))
    line = CommandLine(["startd-cron", "--repository", str(tmp_path), "--apptainer", "/bin/false"])
    said = commands.startd_cron(line, Warnings())
    names = {line.partition(" = ")[0] for line in said.splitlines()} | ATTRIBUTES
    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in DOCUMENT and not name.startswith("ImageCache")] == []


def test_the_settings_in_its_examples_are_ones() -> None:
    written = re.findall(r"[`'](\w[\w-]*) = ", DOCUMENT)
    assert len(written) > 5
    assert set(written) - {"container_image"} <= set(config.SETTINGS)
