from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.resolver.hook.job import Job, name_to_look_up
from publisher.resolver.system import classad
from tests.support.ep.hook import job_ad

if TYPE_CHECKING:
    from publisher.resolver.system.classad import Value

SHA = "0123456789abcdef" * 4


def job(**attributes: Value) -> Job:
    return Job(classad.parse(job_ad(**attributes)))


def test_the_container_image_counts_before_the_singularity_image() -> None:
    both = job(ContainerImage="a:1", SingularityImage="b:1")
    assert (both.image, both.written_image) == ("a:1", "a:1")
    assert job(SingularityImage=" b:1 ").image == "b:1"
    assert job(ContainerImage="", SingularityImage="b:1").image == "b:1"
    none = job()
    assert (none.image, none.written_image, none.is_containerised) == ("", "", False)


def test_what_htcondor_transferred_is_known_by_what_the_user_wrote() -> None:
    arrived = job(ContainerImage="rocky.sif", ContainerImageFullPath="osdf:///x/rocky.sif", ContainerImageSource="osdf")
    assert (arrived.image, arrived.written_image) == ("rocky.sif", "osdf:///x/rocky.sif")
    assert job(SingularityImage="a:1", ContainerImageFullPath="osdf:///x/rocky.sif").written_image == "a:1"


def test_the_old_name_of_osdf_is_understood() -> None:
    assert job(SingularityImage="stash:///ospool/x.sif").written_image == "osdf:///ospool/x.sif"


@pytest.mark.parametrize("attribute", ["WantContainer", "WantSIF", "WantSandboxImage"])
def test_a_container_universe_job_is_known_by_what_it_wants(attribute: str) -> None:
    wants: dict[str, Value] = {attribute: True}
    assert job(ContainerImage="a:1", **wants).is_containerised
    assert not job(ContainerImage="a:1", **{attribute: False}).is_containerised
    assert not job(ContainerImage="a:1").is_containerised
    assert job(SingularityImage="a:1").is_containerised


def test_a_job_that_htcondors_test_sent_back_says_how_often() -> None:
    told = job_ad() + b"NumVacatesByReason = [ HookPrepareJobFailure = 7; SingularityTestFailed = 2 ]\n"
    assert Job(classad.parse(told)).test_failures == 2
    assert job(NumVacatesByReason="[ SingularityTestFailed = 2 ]").test_failures == job().test_failures == 0


def test_a_job_has_its_id_owner_and_the_form_it_asks_for() -> None:
    found = job(WantImageForm=" SIF ")
    assert (found.id, found.owner, found.form) == ("7.0", "user", "sif")
    bare = Job({})
    assert (bare.id, bare.owner, bare.form) == ("", "", "")


@pytest.mark.parametrize(
    "text",
    [
        f"osdf:///ospool/images/sif/01/{SHA}.sif",
        f"https://origin.example.org/images/sif/01/{SHA}.sif?directread",
        f"/var/cache/sif/01/{SHA}.sif",
        f"{SHA}.sif",
    ],
)
def test_a_sif_of_ours_is_its_digest_wherever_it_lies(text: str) -> None:
    assert name_to_look_up(text) == f"sha256:{SHA}"


@pytest.mark.parametrize(
    "text",
    [
        "osdf:///ospool/uc-shared/images/htc__rocky__9.sif",
        f"osdf:///x/{SHA}",
        f"osdf:///x/{SHA[1:]}.sif",
        f"osdf:///x/{SHA.upper()}.sif",
        f"osdf:///x/g{SHA[1:]}.sif",
        f"osdf:///x/y.sif?{SHA}.sif",
        "htc/rocky:9",
    ],
)
def test_any_other_name_stays(text: str) -> None:
    assert name_to_look_up(text) == text
