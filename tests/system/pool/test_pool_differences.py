"""Jobs of a pool get a new version of an image for the bytes of the difference."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool_site import LARGE, PADDING, REPOSITORY

if TYPE_CHECKING:
    from tests.support.ep.pool_site import Site

pytestmark = pytest.mark.system

JOB = {"+SingularityImage": f'"/cvmfs/{REPOSITORY}/{LARGE}"', "+WantImageForm": '"sif"'}


def test_a_new_version_comes_as_the_difference_from_the_cached_one(site: Site) -> None:
    trace = site.pool.root / "site" / "differences.jsonl"
    trace.touch()
    trace.chmod(0o666)
    site.empty_cache()
    site.configure(refresh="0 s", trace=str(trace))
    try:
        assert site.submit(JOB).done().output().splitlines()[0] == LARGE
        site.push(LARGE, "the second version")
        site.host.sync()
        before = len(site.web.requests)
        jobs = site.submit(JOB, 3).done(3)
        assert {jobs.output(process).splitlines()[0] for process in range(3)} == {"the second version"}
        ranges = [asked for path, asked in site.web.requests[before:] if path.endswith(site.host.sif(LARGE).name)]
        fetched = [line for line in map(json.loads, trace.read_text().splitlines()) if line["wanted"]]
    finally:
        site.push(LARGE)
        site.host.sync()
        site.configure()
        site.empty_cache()
        trace.unlink()
    assert ranges
    assert all(ranges), "closed ranges only"
    first, second = fetched
    assert first["bytes"] > PADDING
    assert second["wanted"] > PADDING
    assert second["bytes"] < second["wanted"] / 20
    assert second["copied"] > second["wanted"] * 0.95
