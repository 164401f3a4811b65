"""Texts of strangers that would like to be script, in every place of the status page that shows texts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher.page.details import BuildChanges
from publisher.state.outcomes import FAILING, LastOutcome, Outcomes
from publisher.state.publication_log import BLOCK, LogChange
from tests.support.page.world import LIST, NOW, record, version

if TYPE_CHECKING:
    from publisher.contract.records import Record
    from tests.support.page.world import PageWorld

SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`&{{7*7}}"
HOSTILE = f"{SCRIPT}\u202e\x1b[2J\x00\u2028"
LIST_WITH_SCRIPT = LIST.replace("Base images", "</p><script>alert(1)</script>")
NAMES = ("javascript:alert(1)", "x/<b>:1", "'\"><script>alert(1)</script>/x:1")


def make_hostile(world: PageWorld) -> tuple[str, ...]:
    """Give a world hostile labels, errors, feed entries, signers, owners, names and paths; return the names."""
    attached = [{"digest": HOSTILE, "kind": HOSTILE, "type": HOSTILE}]
    bad = version("bad", signed={"identity": HOSTILE}, attached=attached, test=HOSTILE)
    older = version("older", state="superseded")
    records: dict[str, Record] = {"htc/bad:1": record("htc/bad:1", bad, older), **{name: record(name) for name in NAMES}}
    entries = tuple(replace(entry, owner=HOSTILE, project=HOSTILE) for entry in world.image_list.entries)
    world.image_list = replace(world.image_list, entries=entries)
    failing = LastOutcome(FAILING, HOSTILE, NOW)
    world.snapshot = replace(world.snapshot, outcomes=Outcomes({"htc/failing:1": failing}, {}, NOW, NOW, HOSTILE))
    world.publish(LogChange("htc/bad:1", HOSTILE, bad.digest, BLOCK, HOSTILE), changed=records)
    inner = {"Labels": {HOSTILE: HOSTILE}, "Env": [HOSTILE], "User": HOSTILE, "WorkingDir": HOSTILE}
    words = {"Entrypoint": [HOSTILE], "Cmd": [HOSTILE]}
    world.configs[bad.digest] = json.dumps({"config": {**inner, **words}}).encode()
    world.differences[older.digest, bad.digest] = BuildChanges(older.digest, 1, 0, 0, 1, (("+", HOSTILE, 1),))
    return NAMES
