from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from publisher.cli.main import publisher

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOW = (
    "aiohttp",
    "asyncio",
    "cryptography",
    "docker",
    "git",
    "jinja2",
    "jwt",
    "pydantic",
    "pyfastcdc",
    "requests",
    "rich",
    "sigstore",
    "tenacity",
    "yaml",
)
"""Libraries of which each takes a tenth of the start or more."""
_SCRIPT = f"""
import json, sys
from publisher.cli.main import main
try:
    main()
finally:
    print(json.dumps([name for name in {SLOW} if name in sys.modules]))
"""


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--version"], []),
        (["nothing"], []),
        (["status", "--repository=images.example.org"], ["cryptography", "pydantic", "yaml"]),
        (["keys", "show", "missing.json"], ["cryptography", "pydantic", "yaml"]),
    ],
)
def test_a_command_starts_without_the_libraries_that_it_does_not_need(arguments: Sequence[str], needed: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT, *arguments], capture_output=True, text=True, check=False)
    imported = json.loads(done.stdout.splitlines()[-1])
    assert set(imported) <= set(needed), done.stderr


def test_a_sync_with_nothing_to_build_starts_without_what_builds_need() -> None:
    script = (
        "import json, sys, publisher.cli.commands.publish, aiohttp.connector as connector;"
        "authorities = connector._SSL_CONTEXT_VERIFIED.cert_store_stats()['x509'];"
        "print(json.dumps([authorities, *sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    authorities, *modules = json.loads(done.stdout)
    builds = {f"publisher.build.{name}" for name in ("local", "parallel", "squash", "testrun")}
    assert set(modules) & {*SLOW, *builds} == {"aiohttp", "asyncio", "cryptography", "pydantic", "tenacity", "yaml"}
    assert authorities == 0  # loading those of the host takes as long as the rest of aiohttp


def test_garbage_is_collected_again_once_a_command_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[bool] = []
    path = "publisher.cli.commands.usage"

    def fake(name: str) -> None:
        imported.append(gc.isenabled())
        raise ImportError(name)

    monkeypatch.delitem(sys.modules, path, raising=False)
    monkeypatch.setattr(importlib, "import_module", fake)
    with pytest.raises(ImportError, match=path):
        publisher.get_command(click.Context(publisher), "usage")
    assert imported == [False]
    assert gc.isenabled()


def test_each_command_is_found_under_its_own_name() -> None:
    context = click.Context(publisher)
    commands = {name: publisher.get_command(context, name) for name in publisher.list_commands(context)}
    assert [name for name, command in commands.items() if command is None or command.name != name] == []
    assert list(commands) == sorted(commands)
    assert publisher.get_command(context, "nothing") is None
