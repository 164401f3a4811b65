"""Keys outside the publisher's process: SoftHSM's token, and a program that signs as the client of a KMS does."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from publisher.signing.key_source import ProgramKey, TokenKey
from publisher.state.signing import new_key

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "123456"


def make_token(home: Path) -> TokenKey:
    """Make a token with a P-256 key; SoftHSM finds it by its configuration in the home directory ``home``."""
    assert MODULE.exists(), "ci/install-system --tests installs SoftHSM and OpenSC"
    name, label = "publisher", "signing"
    settings = home / ".config/softhsm2/softhsm2.conf"
    settings.parent.mkdir(parents=True)
    (home / "tokens").mkdir()
    settings.write_text(f"directories.tokendir = {home}/tokens\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    tool = ["pkcs11-tool", "--module", str(MODULE), "--token-label", name, "--login", "--pin", PIN]
    for argv in (
        ["softhsm2-util", "--init-token", "--free", "--label", name, "--pin", PIN, "--so-pin", PIN],
        [*tool, "--keypairgen", "--key-type", "EC:prime256v1", "--label", label],
    ):
        subprocess.run(argv, check=True, capture_output=True, env=environment)
    return TokenKey(name, label, MODULE)


def make_program(where: Path, sign: str = 'exec openssl dgst -sha256 -sign "$key"') -> ProgramKey:
    """Write a program that signs with a key of its own by the shell command ``sign``."""
    assert shutil.which("openssl") is not None
    new_key(where / "kms-key")
    program = where / "kms-signer"
    program.write_text(f"#!/bin/sh\nkey={where}/kms-key\ncase $1 in\npublic-key) cat $key.pub ;;\nsign) {sign} ;;\nesac\n")
    program.chmod(0o755)
    return ProgramKey(program)
