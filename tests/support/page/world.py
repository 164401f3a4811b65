"""A publication with images in every state, as values, for the status page: of any size, without repository and registry."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from publisher.contract.records import BLOCKED, EXPIRING, Record, Sif, Version
from publisher.images import reader
from publisher.images.entry import ImageList
from publisher.page.learn import Sources
from publisher.page.writer import PageContent
from publisher.state.outcomes import FAILING, GONE, LastOutcome, Outcomes
from publisher.state.publication_log import CHANGED, NEW, LogChange, LogEntry, LogHead, entry_name
from publisher.state.snapshot import Snapshot
from publisher.status.answer import Known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.page.details import BuildChanges

NOW = int(datetime(2026, 11, 29, 15, tzinfo=UTC).timestamp())
TODAY = date(2026, 11, 29)
NAME = "images.example.org"
LIST = """\
version: 1
groups:
  - title: Base images
    images:
      - image: hub.opensciencegrid.org/htc/rocky:9
        owner: htc
        project: OSPool
      - image: docker.io/htc/new:1
      - image: docker.io/htc/building:1
      - image: docker.io/htc/failing:1
        owner: htc
      - image: docker.io/htc/gone:1
      - image: docker.io/htc/expired:1
        expires: 2026-10-31
      - image: docker.io/htc/blocked:1
      - image: docker.io/htc/tags
        tags: ["1.*"]
        keep: 2
"""
STATES = {
    "htc/rocky:9": "published",
    "htc/new:1": "waiting",
    "htc/building:1": "building",
    "htc/failing:1": "failing",
    "htc/gone:1": "gone",
    "htc/expiring:1": "expiring",
    "htc/expired:1": "expired",
    "htc/blocked:1": "blocked",
    "htc/never:1": "not listed",
}
"""The nine names that the world has, with their states."""
REPOSITORIES = (
    "gromacs/gromacs",
    "pytorch/pytorch",
    "osgvo/osgvo-el9",
    "lscsoft/lalsuite",
    "rapidsai/base",
    "htcondor/mini",
    "r/tidyverse",
)


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def version(text: str, **more: object) -> Version:
    """Return a published version with the content ``text``."""
    found = digest(text)
    sha256 = hashlib.sha256(b"sif" + text.encode()).hexdigest()
    size = 50_000_000 + int(sha256[:7], 16)
    values: dict[str, object] = {
        "sandbox": f".images/{found[7:9]}/{found[9:]}",
        "sif": Sif(f"sif/{sha256[:2]}/{sha256}.sif", sha256, size),
        "published": NOW - int(sha256[:6], 16),
        "unpacked_size": 3 * size,
        "files": 31_000,
        "file_index": hashlib.sha256(b"files" + text.encode()).hexdigest(),
        "test": "ran",
    }
    return Version(found, **{**values, **more})  # type: ignore[arg-type]  # attributes of a version


def record(name: str, *versions: Version, registry: str = "docker.io") -> Record:
    return Record(name, f"{registry}/{name}", digest(f"tag {name}"), {"amd64": versions or (version(name),)})


def records(count: int) -> dict[str, Record]:
    """Return the published images of the world, and further ones up to ``count``."""
    rocky = Record(
        "htc/rocky:9",
        "hub.opensciencegrid.org/htc/rocky:9",
        digest("tag rocky"),
        {
            "amd64": (version("rocky", published=NOW - 3600), version("old rocky", state="superseded")),
            "arm64": (version("rocky arm"),),
        },
    )
    made = [
        rocky,
        record("htc/building:1"),
        record("htc/expiring:1", version("expiring", state=EXPIRING, since=NOW - 86400, until=NOW + 13 * 86400)),
        record(
            "htc/blocked:1",
            version("blocked", state=BLOCKED, since=NOW - 600, reason="it has a stolen token", sandbox=None, sif=None),
        ),
    ]
    made += [record(f"{REPOSITORIES[n % len(REPOSITORIES)]}:{n // 700}.{n}") for n in range(max(0, count - len(made)))]
    return {one.name: one for one in sorted(made, key=lambda one: one.name)}


def outcomes(**more: LastOutcome) -> Outcomes:
    failing = LastOutcome(
        FAILING, "layer 3 has a file of 2 TB, and max_size of its entry is 20 GB", NOW - 7200, 4, NOW - 900, NOW + 2700
    )
    gone = LastOutcome(GONE, "docker.io answers 404: the tag 1 does not exist", NOW - 86400, 96, NOW - 300)
    images = {"htc/failing:1": failing, "htc/gone:1": gone, **more}
    return Outcomes(images, {"docker.io/htc/tags:1.*": ("htc/tags:1.9", "htc/tags:1.8")}, NOW - 300, NOW - 60)


class PageWorld:
    """What the status page is made from; change ``snapshot`` for the next sync."""

    def __init__(self, count: int = 0, text: str = LIST) -> None:
        self.log: dict[str, bytes] = {}
        self.read: dict[str, bytes] = {}
        self.configs: dict[str, bytes] = {}
        self.differences: dict[tuple[str, str], BuildChanges] = {}
        self.image_list = reader.parse(text.encode(), "images.yaml")
        self.now = NOW
        self.snapshot = Snapshot(NAME, 7, NOW - 60, NOW + 14 * 86400, records(count), outcomes=outcomes())
        self.publish(
            *[LogChange(one.name, "amd64", one.platforms["amd64"][0].digest, NEW) for one in self.snapshot.records.values()]
        )

    @classmethod
    def empty(cls) -> PageWorld:
        """Return a world in which nothing is listed or published yet."""
        made = cls()
        made.log, made.image_list, made.snapshot = {}, ImageList(()), Snapshot(NAME)
        return made

    def publish(self, *changes: LogChange, changed: Mapping[str, Record] | None = None) -> None:
        """Publish changed records, with an entry of the publication log."""
        head = self.snapshot.log
        serial = self.snapshot.serial + 1
        previous, previous_serial = (None, 0) if head is None else (head.sha256, head.serial)
        entry = LogEntry(NAME, serial, previous, previous_serial, self.now, "tester@host", digest("shards")[7:], changes)
        self.log[entry_name(serial)] = entry.content()
        head = LogHead(hashlib.sha256(entry.content()).hexdigest(), serial)
        self.snapshot = replace(self.snapshot.with_records(changed or {}), serial=serial, log=head)

    def rebuild(self, name: str) -> None:
        """Publish a new build of an image."""
        before = self.snapshot.records[name]
        new = version(f"{name} at {self.now}", published=self.now)
        old = [*before.platforms["amd64"]]
        old[0] = Version.from_json({**old[0].to_json(), "state": "superseded"})
        after = Record(name, before.reference, digest(f"{name} at {self.now}"), {**before.platforms, "amd64": (new, *old)})
        self.publish(LogChange(name, "amd64", new.digest, CHANGED), changed={name: after})

    @property
    def content(self) -> PageContent:
        sources = Sources(
            self.log.get, self.read.get, lambda old, new: self.differences.get((old.digest, new.digest)), self.configs
        )
        known = Known(self.snapshot, self.image_list, TODAY)
        return PageContent(known, self.now, 900, "osdf:///ospool/images/", sources)
