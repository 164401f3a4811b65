"""Witnesses: a second place that keeps the publication log and every signed index, run by somebody else if possible.

Whoever shows different manifests to different readers has to sign two indexes with one serial. The one that the witness has and
the other one together prove it. A witness only ever gets new files; those that it has are never replaced.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from publisher.contract.errors import ManifestError
from publisher.contract.manifest import Index, unseal
from publisher.errors import CommandError, WitnessError
from publisher.state.publication_log import LogEntry, entry_name
from publisher.system import command
from publisher.system.durable import delete, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from publisher.targets.origins.base import Origin

_log = logging.getLogger(__name__)
_INDEXES = "indexes"
_BRANCH = "main"
_LATER = "the next run sends what is missing"
_DEADLINE = 300.0  # seconds for one git command
_WHO = ("-c", "user.name=publisher", "-c", "user.email=publisher@localhost", "-c", "commit.gpgsign=false")


class Witness(ABC):
    """A second place for the publication log."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return the content of a file, None if there is none. Raise PublisherError."""

    @abstractmethod
    def add(self, files: Mapping[str, bytes]) -> None:
        """Add files. Raise PublisherError if they cannot be added, or if one exists with other content."""

    @abstractmethod
    def indexes(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of every index. Raise PublisherError."""


class OriginWitness(Witness):
    """Another origin, or a directory of another file system."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    def read(self, name: str) -> bytes | None:
        """See :meth:`Witness.read`."""
        return self._origin.read(name)

    def add(self, files: Mapping[str, bytes]) -> None:
        """See :meth:`Witness.add`."""
        for name, content in files.items():
            self._origin.put_bytes(name, content)

    def indexes(self) -> Iterator[tuple[str, bytes]]:
        """See :meth:`Witness.indexes`."""
        for name in list(self._origin.names(_INDEXES)):
            content = self._origin.read(name)
            if content is not None:
                yield name, content


class GitWitness(Witness):
    """The branch ``main`` of a git repository. Its server should refuse pushes that are not fast-forward.

    Args:
        url: the repository, as ``git fetch`` takes it.
        clone: directory for a clone; made if it does not exist.
    """

    def __init__(self, url: str, clone: Path) -> None:
        self._url = url
        self._clone = clone
        self._is_current = False

    def read(self, name: str) -> bytes | None:
        """See :meth:`Witness.read`."""
        self._update()
        path = self._clone / name
        with self._failures():
            return path.read_bytes() if path.is_file() else None

    def add(self, files: Mapping[str, bytes]) -> None:
        """See :meth:`Witness.add`."""
        self._update()
        self._is_current = False
        for name, content in files.items():
            path = self._clone / name
            with self._failures():
                if path.exists() and path.read_bytes() != content:
                    raise WitnessError(f"the witness {self._url} has another {name}", hint="publisher log verify compares them")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        self._git("add", "--all")
        self._git(*_WHO, "commit", "--quiet", "--message", f"Add {', '.join(sorted(files)[-2:])}")
        self._git("push", "--quiet", "origin", f"HEAD:{_BRANCH}")

    def indexes(self) -> Iterator[tuple[str, bytes]]:
        """See :meth:`Witness.indexes`."""
        self._update()
        for path in sorted((self._clone / _INDEXES).glob("*.json")):
            with self._failures():
                content = path.read_bytes()
            yield f"{_INDEXES}/{path.name}", content

    def _update(self) -> None:
        """Make the clone what the repository has now; one that a failure has damaged is made anew."""
        if self._is_current:
            return
        with self._failures():
            try:
                self._fetch()
            except WitnessError as error:
                if not (self._clone / ".git").exists():
                    raise
                _log.info("the clone of the witness in %s is made anew: %s", self._clone, error)
                delete(self._clone)
                self._fetch()
        self._is_current = True

    def _fetch(self) -> None:
        if not (self._clone / ".git").is_dir():
            self._begin()
        self._git("fetch", "--quiet", "--prune", "origin")
        if self._git("branch", "--remotes", "--list", f"origin/{_BRANCH}").strip():
            self._git("reset", "--quiet", "--hard", f"origin/{_BRANCH}")
            self._git("clean", "--quiet", "--force", "-dx")  # what an addition left that failed
        else:
            self._begin()

    def _begin(self) -> None:
        """Make an empty clone."""
        delete(self._clone)
        self._clone.mkdir(parents=True)
        self._git("init", "--quiet", f"--initial-branch={_BRANCH}")
        self._git("remote", "add", "origin", self._url)

    def _git(self, *arguments: str) -> bytes:
        env = {"GIT_TERMINAL_PROMPT": "0"} | ({"HOME": os.environ["HOME"]} if "HOME" in os.environ else {})
        try:
            return command.run(["git", "-C", str(self._clone), *arguments], deadline=_DEADLINE, env=env).stdout
        except CommandError as error:
            hint = error.hint or f"look at that repository and at the disk of {self._clone}; {_LATER}"
            raise WitnessError(f"the witness {self._url} cannot be used: {error.reason}", hint=hint) from error

    def _failures(self) -> AbstractContextManager[None]:
        return failures(WitnessError, f"the clone of the witness in {self._clone} cannot be used", f"look at that disk; {_LATER}")


def bring_up_to_date(witness: Witness, read: Callable[[str], bytes | None], index: bytes) -> None:
    """Add the published index to a witness, with the entries of the log that it lacks.

    Args:
        witness: the witness.
        read: returns the content of a file below the manifest's directory, None if there is none.
        index: content of the published index.

    Raises:
        PublisherError: the witness does not take them, or an entry is damaged.
    """
    serial = Index.parse(unseal(index)[0]).serial
    name = f"{_INDEXES}/{serial}.json"
    if witness.read(name) == index:
        return
    files = {name: index}
    while serial and witness.read(entry_name(serial)) is None:
        content = read(entry_name(serial))
        if content is None:
            break
        files[entry_name(serial)] = content
        try:
            serial = LogEntry.parse(content).previous_serial
        except ManifestError as error:
            raise WitnessError(f"{entry_name(serial)} is damaged: {error.reason}", hint="see publisher log verify") from error
    witness.add(dict(reversed(files.items())))  # the oldest entry first and the index last: what is there has all before it
