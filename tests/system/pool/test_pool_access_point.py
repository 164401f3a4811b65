"""What the access point's configuration changes in jobs, on their way through a real pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.ep.pool_site import LARGE, REPOSITORY, SMALL

if TYPE_CHECKING:
    from tests.support.ep.pool_site import Site

pytestmark = pytest.mark.system


@pytest.mark.parametrize("common", ["false", "true"], ids=["transferred", "in-common"])
def test_a_sif_of_ours_named_by_its_url_is_not_transferred_but_had_from_the_site(site: Site, common: str) -> None:
    published = site.host.sif(LARGE)
    url = f"{site.web.url}/sif/{published.name[:2]}/{published.name}"
    beside = site.pool.root / "jobs" / "beside"
    beside.write_text("beside\n")
    description = {"universe": "container", "container_image": url, "transfer_input_files": beside, "container_is_common": common}
    before = site.downloads(LARGE)
    jobs = site.submit(description, script="cat /etc/motd beside; ls; echo $APPTAINER_CONTAINER").done()
    motd, told, *names, image = jobs.output().splitlines()
    assert (motd, told) == (LARGE, "beside")
    assert published.name not in names
    assert image.startswith(f"{site.repository}/.images/"), "the site's choice: its sandbox"
    assert site.downloads(LARGE) == before
    assert jobs.ad()["TransferInput"] == str(beside)


def test_a_users_own_sif_is_htcondors_to_transfer_once_for_all_jobs_if_it_is_told_so(site: Site) -> None:
    own = site.pool.root / "jobs" / "own.sif"
    own.write_bytes(site.host.sif(SMALL).read_bytes())
    description = {"universe": "container", "container_image": own, "container_is_common": "true"}
    jobs = site.submit(description, 2, script="cat /etc/motd; echo $APPTAINER_CONTAINER").done(2)
    assert [jobs.output(process).splitlines()[0] for process in range(2)] == [SMALL, SMALL]
    assert jobs.output().rstrip().endswith("/scratch/own.sif")
    assert jobs.log.count("Common files event: TransferFinished") == 1


@pytest.mark.parametrize("attribute", ["+SingularityImage", "+ContainerImage"])
def test_a_job_that_names_an_image_of_the_repository_goes_where_that_is_to_be_had(site: Site, attribute: str) -> None:
    jobs = site.submit({attribute: f'"/cvmfs/{REPOSITORY}/{SMALL}"', "hold": "true"})
    requirements = jobs.text("Requirements")
    jobs.remove()
    assert "TARGET.HasImageResolver =?= true || TARGET.HAS_CVMFS_images_example_org =?= true" in requirements


def test_other_jobs_stay_as_they_are(site: Site) -> None:
    elsewhere = {"+SingularityImage": '"/cvmfs/other.example.org/x:1"'}
    sif = {"universe": "container", "container_image": f"{site.web.url}/somebody/else.sif"}
    alike = {"universe": "container", "container_image": f"osdf:///somebody/sif/ab/{'ab' * 32}.sif"}
    for description in ({}, elsewhere, sif, alike):
        jobs = site.submit({**description, "hold": "true"})
        assert "HasImageResolver" not in jobs.text("Requirements")
        jobs.remove()
