"""The command ``publisher init``: a directory in which ``publisher plan``, ``sync`` and ``status`` need no flags."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.cli.console import console
from publisher.cli.logging_options import logging_options
from publisher.contract import files
from publisher.contract.errors import os_reason
from publisher.errors import UsageError
from publisher.settings.sources import FILE_NAME
from publisher.state import signing

_SETTINGS = """\
# Settings of the publisher; `publisher help settings` and docs/configuration.md have all of them.
# Relative paths start at this file's directory.
images: images.yaml
repository: {repository}    # or cvmfs:FQRN
origin: {origin}    # or pelican://FEDERATION/PREFIX
key: keys/signing.pem    # its public key, keys/signing.pem.pub, goes to the execution points
state: state
"""
_LIST = """\
# The images to publish; docs/images.md has all keys of an entry. Check it with: publisher check --all
version: 1
images:
  - {image}
"""
_NEXT = "publisher doctor looks at this host, publisher plan shows what publisher sync would do"


@click.command("init", short_help="Prepare a directory: settings, a key and a first image list.")
@click.argument("directory", required=False, default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--repository", default="publish/images.example.org", show_default=True, help="Target for sandboxes.")
@click.option("--origin", default="publish/osdf", show_default=True, help="Target for SIFs.")
@click.option("--image", default="debian:12", show_default=True, help="The first image of the list.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@logging_options
def init_command(directory: Path, *, repository: str, origin: str, image: str, as_json: bool) -> None:
    """Write publisher.yaml, a key pair and a first images.yaml to DIRECTORY, the current one by default.

    In that directory, publisher plan, sync and status need no flags. Files that exist are never changed.

    Example: publisher init --repository cvmfs:images.example.org --origin osdf:///ospool/images
    """
    contents = {
        FILE_NAME: _SETTINGS.format(repository=repository, origin=origin),
        "images.yaml": _LIST.format(image=image),
    }
    made = [name for name, text in contents.items() if _write(directory / name, text)]
    key = directory / "keys" / "signing.pem"
    if not key.exists():
        signing.new_key(key)
        made += ["keys/signing.pem", "keys/signing.pem.pub"]
    lines = [f"made: {directory / name}" for name in made]
    console.show({"directory": str(directory), "made": made}, [*lines, _NEXT if made else "everything is there already"], as_json)


def _write(path: Path, text: str) -> bool:
    """Write a file unless it exists; return whether it was written. Raise UsageError if that fails."""
    try:
        if path.exists():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(str(path), text.encode(), mode=0o644)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {os_reason(error, str(path))}") from None
    return True
