from __future__ import annotations

from publisher.cli.render import status as render_status
from publisher.contract.records import BLOCKED, EXPIRING, SUPERSEDED, Record, Sif, Version
from tests.support.publisher.built_values import digest

DAY = 86400


def test_everything_known_about_a_name_is_shown() -> None:
    old = Version(digest("old"), sandbox=None, sif=None, published=DAY, state=SUPERSEDED, since=2 * DAY)
    bad = Version(
        digest("bad"), sandbox=".images/ab/cd", sif=None, published=DAY, state=BLOCKED, since=3 * DAY, reason="it steals tokens"
    )
    leaves = Version(
        digest("arm"),
        sandbox=".images/ef/01",
        sif=Sif("sif/ab/x.sif", "a" * 64, 1_500_000),
        published=DAY,
        unpacked_size=4_000_000,
        files=12,
        file_index="b" * 64,
        test="structure",
        notes={"test": "no shell"},
        state=EXPIRING,
        since=2 * DAY,
        until=9 * DAY,
    )
    held = {"since": 4 * DAY, "digest": digest("index"), "from": {}}
    record = Record("a/b:1", "docker.io/a/b:1", digest("index"), {"amd64": [bad, old], "arm64": [leaves]}, held)
    shown = render_status.status_lines(record, "images.example.org")
    assert shown[0] == "a/b:1"
    text = "\n".join(shown)
    for part in (
        "docker.io/a/b:1",
        "rolled back on 1970-01-05 00:00 UTC",
        "amd64  blocked since 1970-01-04 00:00 UTC: it steals tokens; published 1970-01-02 00:00 UTC",
        f"amd64  (earlier) superseded since 1970-01-03 00:00 UTC; published 1970-01-02 00:00 UTC\n    digest    {digest('old')}",
        "arm64  expiring since 1970-01-03 00:00 UTC, until 1970-01-10 00:00 UTC",
        "/cvmfs/images.example.org/.images/ef/01 (12 entries, 4.0 MB)",
        "sif/ab/x.sif (1.5 MB)",
        "structure; test: no shell",
    ):
        assert part in text, part
    assert render_status.status_json(record) == {"name": "a/b:1", **record.to_json()}
