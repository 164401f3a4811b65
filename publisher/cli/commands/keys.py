"""Commands about the keys that sign the manifest: new, authorize, show."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli.console import console
from publisher.cli.logging_options import logging_options
from publisher.cli.options import common
from publisher.contract import files
from publisher.contract.keys_document import MAX_LIFETIME
from publisher.errors import UsageError
from publisher.settings.targets import CvmfsTarget
from publisher.signing import keys_file
from publisher.signing.credentials import find_secret
from publisher.signing.manifest_signer import open_key
from publisher.state import signing

if TYPE_CHECKING:
    from publisher.contract.keys_document import KeysDocument
    from publisher.settings.settings import PublisherSettings

_DAY = 86400
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group("keys")
def keys_group() -> None:
    """Manage the keys that sign the manifest."""


@keys_group.command("new", short_help="Create a key pair.")
@click.option("--encrypt", is_flag=True, help="Encrypt the private key with a passphrase.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common
def new_command(settings: PublisherSettings, *, encrypt: bool, as_json: bool) -> None:
    """Create a key pair: the private key in the file --key, the public key beside it with the suffix .pub.

    Existing files are never overwritten. The passphrase of --encrypt is the credential FILE.passphrase in $CREDENTIALS_DIRECTORY;
    otherwise it is asked for.

    Example: publisher keys new --key /etc/ospool-image-publisher/signing.pem
    """
    path = settings.signing_key()
    if not isinstance(path, Path):
        raise UsageError(f"a key in {path} is made by its own tools", hint="give --key FILE, or see docs/keys.md")
    passphrase = None
    if encrypt:
        passphrase = find_secret(f"{path.name}.passphrase", console.ask_new_secret, f"a passphrase for the key {path}")
    public_key = signing.new_key(path, passphrase)
    public_path = signing.public_path_of(path)
    lines = [f"private key: {path} (only for this publisher)", f"public key:  {public_path}", f"key id:      {public_key.keyid}"]
    console.show({"private_key": str(path), "public_key": str(public_path), "keyid": public_key.keyid}, lines, as_json)


@keys_group.command("authorize", short_help="Sign the keys document with the root key.")
@click.argument("file", metavar="FILE", type=_FILE)
@click.option("--signer", "signers", multiple=True, metavar="PUB", type=_FILE, help="Public key that may sign. Can be repeated.")
@click.option(
    "--days", type=click.IntRange(1, MAX_LIFETIME // _DAY), default=14, show_default=True, help="How long they may sign."
)
@click.option("--threshold", type=click.IntRange(min=1), default=1, show_default=True, help="How many of them must sign.")
@click.option(
    "--version", "version", type=click.IntRange(min=1), help="Version of the document; default: one above that in FILE."
)
@click.option("--json", "as_json", is_flag=True, help="Print the document as JSON.")
@common
def authorize_command(
    file: Path,
    settings: PublisherSettings,
    *,
    signers: tuple[Path, ...],
    days: int,
    threshold: int,
    version: int | None,
    as_json: bool,
) -> None:
    """Write FILE, the keys document: only the keys of --signer may sign the manifest from now on. --key is the root key.

    A key that FILE named before and that is not given any more is revoked. Needs no network: run it where the root key is, and
    bring FILE to the publisher host, which publishes it.

    Example: publisher keys authorize keys.json --key root.pem --repository-name images.example.org --signer signing.pem.pub
    """
    name = settings.repository_name or (settings.repository.fqrn if isinstance(settings.repository, CvmfsTarget) else None)
    if name is None:
        raise UsageError("the keys document is for one repository", hint="give --repository-name NAME")
    if threshold > len(signers):
        raise UsageError(f"{len(signers)} key(s) cannot give {threshold} signatures", hint="give a --signer PUB for each key")
    root = open_key(settings.signing_key(), console.ask_secret)
    publics = tuple(map(signing.read_public_key, signers))
    previous = keys_file.read_previous(file, root.public, name)
    validity = keys_file.Validity(int(time.time()), days * _DAY)
    envelope, document = keys_file.make(root, publics, name, validity, previous, threshold=threshold, version=version)
    try:
        files.replace(str(file), envelope.content())
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    console.show(json.loads(document.payload()), _lines(document), as_json)


@keys_group.command("show", short_help="Print a keys document.")
@click.argument("file", metavar="FILE", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@logging_options
def show_command(file: Path, *, as_json: bool) -> None:
    """Print who may sign according to the keys document FILE, or to the one that an index FILE has. Verifies no signature."""
    document = keys_file.read(file)
    console.show(json.loads(document.payload()), _lines(document), as_json)


def _lines(document: KeysDocument) -> list[str]:
    lines = [f"keys document of {document.repository}, version {document.version}: {document.threshold} signature(s) needed"]
    for keyid, key in sorted(document.keys.items()):
        lines.append(f"{keyid} may sign until {datetime.fromtimestamp(key.until, UTC):%Y-%m-%d %H:%M} UTC")
    return lines if document.keys else [*lines, "no key may sign"]
