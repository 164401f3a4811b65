"""A publisher host with two levels of keys, the root key's host, and an execution point that has the root's public half."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from tests.support.publisher.host import Host, run_as

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.support.registries.registry import RegistryServer

NAME = "images.example.org"


class KeyHost(Host):
    """The host; ``root`` is the root key, ``document`` the keys document on its host, ``keys`` what execution points trust.

    Attributes:
        settings: further flags of each command, such as those for two levels of keys.
    """

    def __init__(self, where: Path, registry: RegistryServer) -> None:
        self.settings: list[str] = []
        self.key = where / "key.pem"
        super().__init__(where, registry)
        self.root = where / "root.pem"
        self.document = where / "root-host" / "keys.json"
        self.document.parent.mkdir()
        self.keys = where / "ep-keys"
        self.keys.mkdir()
        self.new_key("root.pem")

    def flags(self) -> list[str]:
        return [*super().flags(), *self.settings]

    def new_key(self, name: str) -> Path:
        """Make a key pair; return the private key's file."""
        self.run("keys", "new", flags=[f"--key={self.where / name}"], check=True)
        return self.where / name

    def authorize(self, *signers: Path, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
        """Let the root key sign the next keys document, which lets these keys sign, and bring it to the publisher host."""
        flags = [f"--key={self.root}", f"--repository-name={NAME}", *(f"--signer={signer}.pub" for signer in signers)]
        flags += [f"--{name}={value}" for name, value in options.items()]
        done = self.run("keys", "authorize", str(self.document), flags=flags, check=check)
        self.bring()
        return done

    def bring(self) -> None:
        """Bring the keys document from the root key's host to the publisher host."""
        if self.document.exists():
            shutil.copy(self.document, self.where / "keys.json")

    def use_two_levels(self) -> None:
        self.settings = [f"--keys-document={self.where / 'keys.json'}", f"--root-keys={self.root}.pub"]

    def give(self, *keys: Path) -> None:
        """Replace the public keys that the execution point trusts."""
        for old in self.keys.iterdir():
            old.unlink()
        for key in keys:
            shutil.copy(f"{key}.pub", self.keys)

    def resolve(self, name: str, cache: str = "cache") -> subprocess.CompletedProcess[str]:
        """Resolve as an execution point does."""
        argv = [sys.executable, "-m", "publisher.resolver", "resolve", name, f"--public-key={self.keys}", "--refresh=0"]
        argv += [f"--repository={self.repository}", f"--origin={self.origin}", f"--cache={self.where / cache}"]
        return run_as(argv, None, self.where)
