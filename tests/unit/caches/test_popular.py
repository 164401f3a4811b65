from __future__ import annotations

from publisher.caches.popular import RECENT, popular_sifs
from publisher.state.snapshot import Snapshot
from publisher.usage.records import NameUsage, UseCount
from tests.support.page.world import NAME, NOW, record, version

NAMES = ("a:1", "b:1", "c:1", "idle:1", "old:1", "unused:1", "absent:1")


def usage(jobs: int, last: int = NOW) -> NameUsage:
    return NameUsage(UseCount(jobs, 1, last))


def test_what_jobs_use_and_this_run_has_published_is_fetched_the_most_used_first() -> None:
    records = {name: record(name, version(name, published=NOW)) for name in NAMES[:-1]}
    records["old:1"] = record("old:1", version("old", published=NOW - 1))
    records["c:1"] = record("c:1", version("a:1", published=NOW), version("c before", published=NOW, state="superseded"))
    snapshot = Snapshot(NAME, 7, NOW, NOW, records)
    used = {
        "a:1": usage(5),
        "b:1": usage(50),
        "c:1": usage(4),
        "idle:1": usage(99, NOW - RECENT),
        "old:1": usage(9),
        "absent:1": usage(9),
    }
    found = popular_sifs(snapshot, NAMES, used, since=NOW, now=NOW, most=5)
    wanted = [records[name].platforms["amd64"][0].sif for name in ("b:1", "a:1")]
    assert found == wanted, "one content counts once"
    assert popular_sifs(snapshot, NAMES, used, since=NOW, now=NOW, most=1) == wanted[:1]
