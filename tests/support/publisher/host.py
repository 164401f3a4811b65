"""A publisher host for system tests: directories, a key, a list, and the real command line in a process of its own."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.contract import manifest
from tests.support.checkout import ROOT
from tests.support.publisher import warm_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from publisher.contract.records import Record
    from tests.support.registries.registry import RegistryServer

PROGRAMS = Path(sys.executable).parent
ORDINARY = "image-test"
"""The account that ``ci/install-system`` makes for strangers' code."""
_DEADLINE = 120


class Host:
    """Repository, origin, state, key and list below ``where``, which others can enter; ``registry`` speaks plain http."""

    def __init__(self, where: Path, registry: RegistryServer) -> None:
        self.where = where
        self.registry = registry
        self.repository = where / "images.example.org"
        self.origin = where / "origin"
        self.state = where / "state"
        self.key = where / "key.pem"
        self.list = where / "images.yaml"
        self.page = "none"  # most tests look at other things
        self.run("keys", "new", check=True)

    def flags(self) -> list[str]:
        return [
            f"--images={self.list}",
            f"--repository={self.repository}",
            f"--origin={self.origin}",
            f"--state={self.state}",
            f"--key={self.key}",
            f"--insecure-registry={self.registry.address}",
            f"--page={self.page}",
        ]

    def run(
        self, *arguments: str, check: bool = False, flags: Sequence[str] | None = None, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        words = [*arguments, *(self.flags() if flags is None else flags)]
        if user is None:
            done = warm_command.run(words, environment(self.where), self.where, _DEADLINE)
        else:
            done = run_as([sys.executable, "-m", "publisher", *words], user, self.where)
        assert not check or done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def sync(self, *names: str, check: bool = True) -> Report:
        done = self.run("sync", "--json", *names, check=check)
        return Report(done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr)

    def images(self, *entries: str | Mapping[str, object], **platforms: object) -> None:
        """Write the list; names are within the registry."""
        listed = [
            {**entry, "image": f"{self.registry.address}/{entry['image']}"}
            if not isinstance(entry, str)
            else f"{self.registry.address}/{entry}"
            for entry in entries
        ]
        document = {"version": 1, "groups": [{"title": "Test images", "images": listed}], **platforms}
        self.list.write_text(json.dumps(document))  # JSON is YAML

    def index(self, origin: bool = False) -> manifest.Index | None:
        path = self.origin / "manifest" / "index.json" if origin else self.repository / ".publisher" / "index.json"
        return manifest.Index.parse(manifest.unseal(path.read_bytes())[0]) if path.exists() else None

    def record(self, name: str) -> Record:
        index = self.index()
        assert index is not None
        sha256 = index.shard_for(name)
        assert sha256 is not None
        content = (self.repository / ".publisher" / manifest.shard_name(sha256)).read_bytes()
        record = manifest.Shard.parse(content, sha256).record(name)
        assert record is not None
        return record

    def sif(self, name: str, platform: str = "amd64") -> Path:
        version = self.record(name).current(platform)
        assert version is not None
        assert version.sif is not None
        return self.origin / version.sif.path

    def leftovers(self) -> list[str]:
        """What no finished run leaves: staged transactions, uploads, builds, partial blobs."""
        areas = [self.repository / ".transaction", self.origin / ".incoming", self.state / "builds", self.state / "blobs/partial"]
        found = [path for area in areas if area.is_dir() for path in area.iterdir() if path.name not in {"lock", "run"}]
        found += list((self.state / "tmp").glob("*")) if (self.state / "tmp").is_dir() else []
        return [str(path.relative_to(self.where)) for path in found]


class Report:
    """What ``publisher sync --json`` said."""

    def __init__(self, status: int, said: dict[str, Any], stderr: str) -> None:
        self.status = status
        self.said = said
        self.stderr = stderr

    @property
    def results(self) -> dict[str, str]:
        return {image["name"]: image["result"] for image in self.said["images"]}

    @property
    def reasons(self) -> dict[str, str]:
        return {image["name"]: image["reason"] for image in self.said["images"]}


def environment(where: Path, user: str | None = None) -> dict[str, str]:
    """Return the environment of a program: little of ours, and a HOME below ``where``, which this makes."""
    home = where / f"home-{user or 'own'}"
    home.mkdir(exist_ok=True)
    env = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**env, "HOME": str(home), "PYTHONPATH": str(ROOT)}


def run_as(argv: Sequence[str], user: str | None, where: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as ``user`` (root only), or as we are when None; in ``where``, with a HOME that is nobody's."""
    account = pwd.getpwnam(user) if user is not None and os.geteuid() == 0 else None
    env = environment(where, user)
    if account is not None:
        os.chown(env["HOME"], account.pw_uid, account.pw_gid)
    return subprocess.run(
        list(argv),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_DEADLINE,
        check=False,
        cwd=where,
        env=env,
        user=None if account is None else account.pw_uid,
        group=None if account is None else account.pw_gid,
        extra_groups=None if account is None else [],
    )
