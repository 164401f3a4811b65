"""What a user finds afterwards of the image that his job ran in: in the queue's ad and history, and in the job's log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool_site import REPOSITORY, SMALL

if TYPE_CHECKING:
    from tests.support.ep.pool_site import Site

pytestmark = pytest.mark.system


@pytest.mark.parametrize("universe", ["vanilla", "container"])
def test_the_jobs_ad_keeps_the_images_name_digest_and_form(site: Site, universe: str) -> None:
    path = f"/cvmfs/{REPOSITORY}/{SMALL}"
    image = {"+SingularityImage": f'"{path}"'} if universe == "vanilla" else {"universe": "container", "container_image": path}
    jobs = site.submit({**image, "+JobAdInformationAttrs": '"ChirpImageDigest"'}).done()
    version = site.host.record(SMALL).current("amd64")
    assert version is not None
    ad = jobs.ad()
    assert (ad["ChirpImageName"], ad["ChirpImageDigest"]) == (SMALL, version.digest)
    assert ad["ChirpImageForm"] == "sandbox", jobs.log
    assert f'ChirpImageDigest = "{version.digest}"' in jobs.log
