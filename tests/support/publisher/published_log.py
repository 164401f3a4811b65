"""The publication log of a :class:`tests.support.publisher.prepublished.Place`, as ``publisher log verify`` sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.maintain import log_audit
from publisher.state.paths import REPOSITORY_MANIFEST
from publisher.state.snapshot import load
from tests.support.publisher.prepublished import NAME

if TYPE_CHECKING:
    from publisher.maintain.log_audit import PublicationLog
    from publisher.publish.manifest.witness import Witness
    from tests.support.publisher.prepublished import Place


def read_log(place: Place) -> PublicationLog:
    return log_audit.read_log(lambda name: place.repository.read(f"{REPOSITORY_MANIFEST}/{name}"), place.index())


def problems(place: Place, witness: Witness | None = None) -> list[str]:
    log = read_log(place)
    snapshot = load(lambda name: place.repository.read(f"{REPOSITORY_MANIFEST}/{name}"), NAME, None)
    assert snapshot is not None
    found = list(log_audit.verify_log(log, snapshot.records.values()))
    if witness is not None:
        found += log_audit.compare_with_witness(log, place.index(), witness.indexes(), place.signer.publics)
    return found
