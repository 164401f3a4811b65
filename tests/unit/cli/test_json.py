"""Commands that report something print JSON with ``--json``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner

from publisher.cli.main import publisher

if TYPE_CHECKING:
    from pathlib import Path


def said(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(publisher, arguments)
    return json.loads(done.stdout)  # type: ignore[no-any-return]  # an object


def test_new_keys_and_their_authorization(tmp_path: Path) -> None:
    keys = {name: said("keys", "new", "--json", f"--key={tmp_path / name}") for name in ("root", "signer")}
    assert keys["root"]["private_key"] == str(tmp_path / "root")
    signer = keys["signer"]
    arguments = ["--repository-name=images.example.org", "--signer", str(signer["public_key"]), "--json"]
    document = said("keys", "authorize", str(tmp_path / "keys.json"), f"--key={tmp_path / 'root'}", *arguments)
    assert document["repository"] == "images.example.org"
    assert str(signer["keyid"]) in json.dumps(document)


def test_an_import_with_what_was_reported(tmp_path: Path) -> None:
    listed = tmp_path / "docker_images.txt"
    listed.write_text("htcondor/mini:23.0-el9\nhttps://no.example/reference:1:2\n")
    found = said("import", str(listed), "--json")
    assert "htcondor/mini:23.0-el9" in str(found["text"])
    assert isinstance(found["problems"], list)
    assert found["problems"]
    output = tmp_path / "images.yaml"
    assert said("import", str(listed), "--json", "--output", str(output))["text"] is None
    assert output.read_text() == found["text"]
