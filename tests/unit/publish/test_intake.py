from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher.plan.make import make_plan
from publisher.publish.intake import Intake
from publisher.registry.blobs.store import BlobStore
from tests.support.publisher.built_values import AMD64, answer, digest, entry
from tests.support.publisher.recorded_sync import EMPTY, Quiet

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def nobody() -> object:
    raise AssertionError("no registry is asked")


def test_sizes_are_those_of_the_layers_as_far_as_the_store_knows_them(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    layers = [{"mediaType": LAYER, "digest": digest(text), "size": size} for text, size in (("one", 300), ("two", 40))]
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest("config"), "size": 2}
    body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).encode()
    stored = f"sha256:{hashlib.sha256(body).hexdigest()}"
    store.put_document(stored, body)
    damaged = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    store.put_document(damaged, b"{}")
    answers = {
        "a/known:1": replace(answer("known"), digests={AMD64: stored}),
        "a/unknown:1": answer("unknown"),
        "a/damaged:1": replace(answer("damaged"), digests={AMD64: damaged}),
    }
    plan = make_plan(map(entry, answers), answers, EMPTY)
    intake = Intake(nobody, nobody, Quiet(), public=nobody)  # type: ignore[arg-type]  # not opened
    intake.store = store
    assert intake.sizes(plan.work) == {"a/known:1": 340, "a/unknown:1": 0, "a/damaged:1": 0}
