from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from publisher.contract.manifest import CLOCK_ERROR, HARD_LIMIT, LIFETIME
from publisher.contract.records import BLOCKED, SUPERSEDED, Version
from publisher.resolver.hook import statuses
from publisher.resolver.hook.decide import decide
from publisher.resolver.hook.job import Job
from publisher.resolver.system import classad
from publisher.resolver.system.notes import Warnings
from tests.support.ep.execution_point import NOW, REPOSITORY, ExecutionPoint, Key, record, sif_content, sif_of, version
from tests.support.ep.hook import STARTS, job_ad
from tests.support.osdf.faulty_cache import FaultyServer

if TYPE_CHECKING:
    from publisher.resolver.hook.decision import Decision
    from publisher.resolver.system.classad import Value

pytestmark = pytest.mark.usefixtures("own_reads")

NAME = "htc/rocky:9"
CVMFS = f"/cvmfs/{REPOSITORY}/{NAME}"
SHA = sif_of(sif_content(NAME)).sha256
ARM = version("arm")


class Site:
    """An execution point at which jobs ask for their images."""

    def __init__(self, ep: ExecutionPoint) -> None:
        self.ep = ep
        self.scratch = ep.root / "scratch"
        self.scratch.mkdir()
        self.changed: dict[str, str | list[str] | None] = {}
        self.now = float(NOW)

    def decide(self, **attributes: Value) -> Decision:
        return self.decide_ad(job_ad(**attributes))

    def decide_ad(self, content: bytes) -> Decision:
        job, notes = Job(classad.parse(content)), Warnings()
        settings = self.ep.settings(**self.changed)
        until = time.monotonic() + 60
        return decide(job, settings, scratch=str(self.scratch), now=self.now, until=until, notes=notes)

    def image(self, **attributes: Value) -> str:
        """What a job starts in, in every universe; of another kind the test fails here."""
        found = self.decide(**attributes)
        assert found.code == statuses.OK, found.message
        assert found.updates["SingularityImage"] == found.updates["ContainerImage"]
        assert found.updates["WantDockerImage"] is False
        assert [found.updates["WantSIF"], found.updates["WantSandboxImage"]].count(True) == 1
        assert found.updates["WantSIF"] is str(found.updates["ContainerImage"]).endswith(".sif")
        return str(found.updates["SingularityImage"])


@pytest.fixture
def site(ep: ExecutionPoint) -> Site:
    """An image in both forms, one for arm64 alone, and one that was blocked."""
    ep.store(sif_content(NAME))
    blocked = version("bad", state=BLOCKED, reason="malware")
    ep.publish(record(NAME), record("arm/only:1", arm64=[ARM]), record("bad/one:1", amd64=[blocked]))
    return Site(ep)


@pytest.fixture
def sandbox(site: Site) -> str:
    return f"{site.ep.repository}/{version(NAME).sandbox}"


def is_untouched(found: Decision) -> bool:
    return found.code == statuses.OK and not set(found.updates) & set(STARTS)


@pytest.mark.parametrize(
    "text",
    [
        CVMFS,
        f"{CVMFS}/",
        NAME,
        f"docker://hub.example.org/{NAME}",
        f"hub.example.org/{NAME}",
        version(NAME).digest,
        f"sha256:{SHA}",
        f"/cvmfs/{REPOSITORY}/{version(NAME).sandbox}",
        f"osdf:///images/sif/{SHA[:2]}/{SHA}.sif",
        f"https://origin.example.org/images/sif/{SHA[:2]}/{SHA}.sif?directread",
        f"{SHA}.sif",
    ],
)
@pytest.mark.parametrize("attribute", ["ContainerImage", "SingularityImage"])
def test_any_spelling_of_a_published_image_is_its_sandbox(site: Site, sandbox: str, attribute: str, text: str) -> None:
    assert site.image(**{attribute: text}) == sandbox


def test_it_says_what_a_user_needs_to_cite_the_image(site: Site) -> None:
    found = site.decide(ContainerImage=CVMFS)
    assert found.message == f"image {NAME} for amd64 is {version(NAME).digest}, started as a sandbox"
    assert found.chirp_attributes == {"ImageName": NAME, "ImageDigest": version(NAME).digest, "ImageForm": "sandbox"}
    assert site.decide(ContainerImage="docker://ubuntu:22.04").chirp_attributes == {}


def test_the_job_ad_says_which_variant_the_job_got(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    platforms = {"amd64": [version(NAME)], "amd64,x86-64-v3": [version("v3")]}
    site.ep.publish(record(NAME, **platforms), serial=2)
    machine_ad = site.ep.root / ".machine.ad"
    machine_ad.write_text('Microarch = "x86_64-v3"\n')
    monkeypatch.setenv("_CONDOR_MACHINE_AD", str(machine_ad))
    assert site.decide(ContainerImage=CVMFS).chirp_attributes["ImageVariant"] == "amd64,x86-64-v3"
    assert site.ep.resolve(NAME).to_json(site.ep.notes)["variant"] == "amd64,x86-64-v3"
    machine_ad.write_text('Microarch = "x86_64-v2"\n')
    assert site.decide(ContainerImage=CVMFS).chirp_attributes["ImageVariant"] == "amd64"


def test_a_site_that_refuses_unsigned_images_starts_no_other_image_either(site: Site) -> None:
    signed = version("signed", signed={"key": "ab"})
    site.ep.publish(record(NAME), record("htc/signed:1", amd64=[signed]), serial=2)
    (site.scratch / "own.sif").write_bytes(b"SIF")
    (site.ep.repository / "unlisted").mkdir()
    others = [NAME, "docker://ubuntu:22.04", "/srv/own", "own.sif", "osdf:///other/own.sif", f"/cvmfs/{REPOSITORY}/unlisted"]
    for unknown in ("pass", "fetch"):
        site.changed = {"unsigned": "refuse", "unknown": unknown}
        assert site.image(ContainerImage="htc/signed:1") == f"{site.ep.repository}/{signed.sandbox}"
        codes = {text: site.decide(ContainerImage=text).code for text in others}
        assert codes.pop(f"/cvmfs/{REPOSITORY}/unlisted") == statuses.NO_IMAGE
        assert set(codes.values()) == {statuses.UNSIGNED}, codes
    site.changed = {}
    assert {site.decide(ContainerImage=text).code for text in others[:4]} == {statuses.OK}


def test_the_site_and_the_job_say_which_form(site: Site, sandbox: str) -> None:
    assert site.image(ContainerImage=CVMFS, WantImageForm="sif").endswith(f"/{SHA}.sif")
    site.changed = {"prefer": "sif"}
    assert site.image(ContainerImage=CVMFS).endswith(f"/{SHA}.sif")
    assert site.image(ContainerImage=CVMFS, WantImageForm="sandbox") == sandbox
    site.changed = {"never": "sandbox"}
    assert site.image(ContainerImage=CVMFS).endswith(f"/{SHA}.sif")
    assert site.decide(ContainerImage=CVMFS, WantImageForm="sandbox").code == statuses.HOST
    assert site.decide(ContainerImage=CVMFS, WantImageForm="squash").code == statuses.NO_FORM


def test_no_user_can_mend_that_the_site_wants_one_form_only(site: Site) -> None:
    site.ep.publish(record("sandbox/only:1", amd64=[version("x", sif=None)]), serial=2)
    assert site.decide(ContainerImage="sandbox/only:1", WantImageForm="sif").code == statuses.NO_FORM
    site.changed = {"form": "sif"}
    assert site.decide(ContainerImage="sandbox/only:1").code == statuses.HOST


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        (f"/cvmfs/{REPOSITORY}/htc/rocky:99", statuses.NO_IMAGE, "check the tag"),
        ("htc/rocky:99", statuses.NO_IMAGE, "no image 'htc/rocky:99' is published"),
        (f"sha256:{'0' * 64}", statuses.NO_IMAGE, "no image"),
        (f"{'0' * 64}.sif", statuses.NO_IMAGE, "no image"),
        ("forgotten.sif", statuses.NO_IMAGE, "and no such file came with the job"),
        (f"/cvmfs/{REPOSITORY}/arm/only:1", statuses.ARCHITECTURE, "not published for amd64 (it is published for arm64)"),
        ("docker://hub.example.org/arm/only:1", statuses.ARCHITECTURE, "not published for amd64"),
        ("bad/one:1", statuses.BLOCKED, "malware"),
        ("docker://hub.example.org/bad/one:1", statuses.BLOCKED, "malware"),
        ("docker://Not A Reference", statuses.NO_REFERENCE, "is not an image reference"),
        ("My Image@", statuses.NO_REFERENCE, "is not an image reference"),
    ],
)
def test_what_the_user_must_mend_holds_the_job_with_words_he_understands(site: Site, text: str, code: int, why: str) -> None:
    found = site.decide(ContainerImage=text)
    assert (found.code, found.updates) == (code, {})
    assert why in found.message


@pytest.mark.parametrize(
    "text",
    [
        "docker://ubuntu:22.04",
        "docker://ghcr.io/htc/rocky:9",
        "https://example.org/image.sif",
        f"https://origin.example.org/images/sif/00/{'0' * 64}.sif",
        "oras://ghcr.io/x/y:1",
        "library://a/b",
        "/home/user/image.sif",
        "/cvmfs/other.example.org/htc/rocky:9",
        f"/cvmfs/{REPOSITORY}.example.org/x",
    ],
)
def test_what_the_manifest_is_not_about_stays_as_it_is(site: Site, text: str) -> None:
    assert is_untouched(site.decide(SingularityImage=text))
    assert is_untouched(site.decide(ContainerImage=text, WantContainer=True, WantSandboxImage=True))


@pytest.mark.parametrize(
    "text",
    [
        "osdf:///ospool/uc-shared/images/htc__rocky__9.sif",
        f"osdf:///images/sif/{SHA[:2]}/{SHA}",
        f"osdf:///images/sif/00/{'0' * 64}.sif",
        "pelican://osg-htc.org/x.sif",
        "stash:///x.sif",
        "s3://bucket/x.sif",
    ],
)
def test_what_apptainer_cannot_open_is_refused_and_not_tried_for_ever(site: Site, text: str) -> None:
    found = site.decide(ContainerImage=text, ContainerImageFullPath=text, WantContainer=True, WantSIF=True)
    assert (found.code, found.updates) == (statuses.NO_IMAGE, {})
    assert f"Apptainer cannot open {text.partition('://')[0]}://" in found.message
    base = text.rpartition("/")[2]
    (site.scratch / base).write_text("")
    brought = site.decide(ContainerImage=base, ContainerImageFullPath=text, WantContainer=True, WantSIF=True)
    assert is_untouched(brought), "HTCondor has transferred it"


def test_what_this_host_may_not_fetch_another_one_may(site: Site) -> None:
    for policy in ({"never": "sif"}, {"cache": None}):
        site.changed = {"unknown": "fetch", **policy}
        assert site.decide(ContainerImage="osdf:///x.sif").code == statuses.HOST
        assert site.decide(ContainerImage="stash:///x.sif").code == statuses.HOST, "it is the old name of osdf"
        assert site.decide(ContainerImage="gsiftp:///x.sif").code == statuses.NO_IMAGE, "none does"


def test_a_vanilla_job_never_starts_outside_the_image_it_names(site: Site) -> None:
    found = site.decide(ContainerImage="docker://ubuntu:22.04", JobUniverse=5)
    assert found.updates == {"SingularityImage": "docker://ubuntu:22.04", "WantSIF": False, "WantSandboxImage": True}
    assert site.decide(ContainerImage="https://example.org/a.sif").updates["WantSIF"] is True


def test_what_htcondor_would_start_is_what_was_looked_at(site: Site) -> None:
    other = "docker://ubuntu:22.04"
    bad = f"/cvmfs/{REPOSITORY}/bad/one:1"
    for wants in ({}, {"WantContainer": True, "WantSandboxImage": True}):
        found = site.decide(ContainerImage=other, SingularityImage=bad, **wants)
        assert (found.code, found.updates["SingularityImage"]) == (statuses.OK, other), "HTCondor takes this one before the other"
    assert site.decide(ContainerImage=" ", SingularityImage=bad).code == statuses.BLOCKED
    assert site.decide(ContainerImage=other, SingularityImage="", WantContainer=True).updates == {"SingularityImage": other}


@pytest.mark.parametrize("expression", ['strcat("/cvmfs/", "x")', "/cvmfs/x", "7", "true", "error"])
@pytest.mark.parametrize("attribute", ["ContainerImage", "SingularityImage"])
def test_an_expression_is_no_image_and_not_the_default_one_either(site: Site, attribute: str, expression: str) -> None:
    for default in ("", NAME):
        site.changed = {"default_image": default}
        found = site.decide_ad(job_ad() + f"{attribute} = {expression}\n".encode())
        assert (found.code, found.updates) == (statuses.NO_REFERENCE, {})
        assert attribute in found.message
    assert site.decide_ad(job_ad() + f"{attribute} = undefined\n".encode()).code == statuses.OK, "as if it were not there"


def test_a_job_without_an_image_gets_the_sites_or_none(site: Site, sandbox: str) -> None:
    assert is_untouched(site.decide())
    site.changed = {"default_image": NAME}
    assert site.image() == sandbox
    assert is_untouched(site.decide(WantDocker=True, DockerImage="ubuntu:22.04")), "Docker starts it"
    assert is_untouched(site.decide(JobUniverse=13)), "a virtual machine"
    site.changed = {"default_image": "gone:1"}
    assert site.decide().code == statuses.CONFIGURATION, "no user can mend the site's own choice"
    site.changed = {"default_image": "docker://ubuntu:22.04"}
    found = site.decide()
    assert found.updates["SingularityImage"] == "docker://ubuntu:22.04"


def test_a_file_that_came_with_the_job_is_started(site: Site) -> None:
    (site.scratch / "mine.sif").write_text("")
    (site.scratch / "tree").mkdir()
    wants: dict[str, Value] = {"WantContainer": True, "WantSIF": True}
    assert is_untouched(site.decide(ContainerImage="mine.sif", ContainerImageFullPath="osdf:///x/mine.sif", **wants))
    assert is_untouched(site.decide(SingularityImage="./mine.sif"))
    assert is_untouched(site.decide(SingularityImage="tree"))


def test_a_file_that_should_have_come_and_did_not_is_looked_up_as_the_user_wrote_it(site: Site, sandbox: str) -> None:
    full = f"osdf:///images/sif/{SHA[:2]}/{SHA}.sif"
    assert site.image(ContainerImage=f"{SHA}.sif", ContainerImageFullPath=full, WantContainer=True, WantSIF=True) == sandbox


def test_a_blocked_sif_is_refused_also_where_it_came_with_the_job(site: Site) -> None:
    bad = sif_of(sif_content("bad")).sha256
    (site.scratch / f"{bad}.sif").write_text("")
    found = site.decide(ContainerImage=f"{bad}.sif", ContainerImageFullPath=f"osdf:///images/sif/{bad[:2]}/{bad}.sif")
    assert (found.code, "malware" in found.message) == (statuses.BLOCKED, True)
    (site.scratch / f"{SHA}.sif").write_text("")
    assert is_untouched(site.decide(ContainerImage=f"{SHA}.sif", WantContainer=True))


def test_a_sandbox_that_no_manifest_lists_is_started_where_it_is(site: Site) -> None:
    physical = site.ep.repository / ".images" / "sha256:00" / "old"
    physical.mkdir(parents=True)
    (site.ep.repository / "old").mkdir()
    (site.ep.repository / "old" / "one:1").symlink_to(f"../{physical.relative_to(site.ep.repository)}")
    assert site.image(SingularityImage=f"/cvmfs/{REPOSITORY}/old/one:1") == str(physical)
    text = f"/cvmfs/{REPOSITORY}/old/one:1"
    assert site.decide(SingularityImage=text, WantImageForm="sif").code == statuses.NO_IMAGE
    for policy in ({"never": "sandbox"}, {"form": "sif"}):
        site.changed = {**policy}
        assert site.decide(SingularityImage=text).code == statuses.NO_IMAGE


def test_a_site_that_has_it_in_no_form_sends_the_job_elsewhere(site: Site, sandbox: str) -> None:
    site.ep.origin.joinpath(sif_of(sif_content(NAME)).path).unlink()
    Path(sandbox).rename(site.ep.root / "away")
    found = site.decide(ContainerImage=CVMFS)
    assert (found.code, found.updates) == (statuses.FETCH, {})
    site.changed = {"cache": None}
    assert site.decide(ContainerImage=CVMFS).code == statuses.SANDBOX
    site.changed = {"form": "sif", "cache": None}
    assert site.decide(ContainerImage=CVMFS).code == statuses.HOST


def test_an_unknown_name_is_answered_with_similar_ones(site: Site) -> None:
    code, message = (found := site.decide(ContainerImage=CVMFS.replace("rocky", "rokcy"))).code, found.message
    assert (code, f"did you mean {NAME}?" in message) == (statuses.NO_IMAGE, True), message
    message = site.decide(ContainerImage=CVMFS.rpartition(":")[0]).message
    assert "it was looked up as htc/rocky:latest" in message
    assert f"did you mean {NAME}?" in message


def test_a_full_disk_is_no_reason_where_the_sandbox_opens(site: Site, sandbox: str) -> None:
    site.changed = {"prefer": "sif", "cache_free": "100 %"}
    assert site.image(ContainerImage=CVMFS) == sandbox
    Path(sandbox).rename(site.ep.root / "away")
    found = site.decide(ContainerImage=CVMFS)
    assert found.code == statuses.NO_ROOM, "the image would run if there were space"
    assert "no space" in found.message


@pytest.mark.parametrize("late", [3600, -3600, LIFETIME, HARD_LIMIT])
def test_a_clock_an_hour_off_changes_nothing(site: Site, sandbox: str, late: int) -> None:
    site.now = NOW + late
    assert site.image(ContainerImage=CVMFS) == sandbox


def test_the_highest_serial_counts_wherever_it_is(site: Site) -> None:
    new = version("new")
    lagging = {path: path.read_bytes() for path in (site.ep.repository / ".publisher").rglob("*.json")}
    site.ep.publish(record(NAME, amd64=[new, version(NAME, state=SUPERSEDED)]), serial=3)
    for path, content in lagging.items():
        path.write_bytes(content)
    assert site.image(ContainerImage=CVMFS).endswith(str(new.sandbox))
    assert site.image(ContainerImage=version(NAME).digest).endswith(str(version(NAME).sandbox))


def test_a_lower_serial_than_was_seen_brings_nothing_back(site: Site) -> None:
    older = {path: path.read_bytes() for path in site.ep.root.rglob("*.json")}
    blocked = version(NAME, state=BLOCKED, reason="malware")
    site.ep.publish(record(NAME, amd64=[blocked]), serial=3)
    assert site.decide(ContainerImage=CVMFS).code == statuses.BLOCKED
    for path, content in older.items():
        path.write_bytes(content)
    assert site.decide(ContainerImage=CVMFS).code == statuses.BLOCKED


def test_an_expired_manifest_serves_what_it_knows_and_blames_nobody_for_the_rest(site: Site, sandbox: str) -> None:
    site.now = NOW + LIFETIME + CLOCK_ERROR + 1
    assert site.image(ContainerImage=CVMFS) == sandbox
    assert site.decide(ContainerImage="new/image:1").code == statuses.MANIFEST


def test_the_last_good_copy_serves_what_it_knows_and_blames_nobody_for_the_rest(site: Site, sandbox: str) -> None:
    assert site.image(ContainerImage=CVMFS, WantImageForm="sif")
    site.ep.origin.rename(site.ep.root / "origin gone")
    (site.ep.repository / ".publisher").rename(site.ep.root / "manifest gone")
    assert site.image(ContainerImage=CVMFS) == sandbox
    assert site.decide(ContainerImage="new/image:1").code == statuses.MANIFEST


def test_a_repository_that_lags_behind_blames_nobody_while_the_network_is_silent(site: Site, sandbox: str) -> None:
    unlisted = site.ep.repository / "old" / "one:1"
    unlisted.mkdir(parents=True)
    with FaultyServer({}) as origin:
        site.changed = {"origin": origin.url}
        for cache in (str(site.ep.cache), None):
            site.changed["cache"] = cache
            assert site.decide(ContainerImage="new/image:1").code == statuses.MANIFEST
            assert site.decide(ContainerImage="arm/only:1").code == statuses.MANIFEST
            assert site.image(ContainerImage=CVMFS) == sandbox
            assert site.image(ContainerImage=f"/cvmfs/{REPOSITORY}/old/one:1") == str(unlisted)
        origin.objects = {f"/{path.relative_to(site.ep.origin)}": path.read_bytes() for path in site.ep.origin.rglob("*.json")}
        assert site.decide(ContainerImage="new/image:1").code == statuses.NO_IMAGE


def test_nobody_is_blamed_for_an_architecture_that_only_an_old_copy_lacks(site: Site) -> None:
    assert site.decide(ContainerImage="arm/only:1").code == statuses.ARCHITECTURE
    assert site.decide(ContainerImage=f"/cvmfs/{REPOSITORY}/arm/only:1").code == statuses.ARCHITECTURE
    (site.ep.repository / "arm" / "only:1").mkdir(parents=True)
    site.now = NOW + LIFETIME + CLOCK_ERROR + 1
    found = site.decide(ContainerImage=f"/cvmfs/{REPOSITORY}/arm/only:1")
    assert (found.code, "not published for amd64, according to" in found.message) == (statuses.MANIFEST, True)
    site.now = NOW
    site.ep.origin.rename(site.ep.root / "origin gone")
    (site.ep.repository / ".publisher").rename(site.ep.root / "manifest gone")
    assert site.decide(ContainerImage="arm/only:1").code == statuses.MANIFEST


def test_past_the_hard_limit_only_paths_that_are_there_pass(site: Site, sandbox: str) -> None:
    site.now = NOW + HARD_LIMIT + CLOCK_ERROR + 1
    assert site.image(ContainerImage=f"/cvmfs/{REPOSITORY}/{version(NAME).sandbox}") == sandbox
    assert site.decide(ContainerImage=NAME).code == statuses.MANIFEST
    assert is_untouched(site.decide(SingularityImage=f"docker://hub.example.org/{NAME}"))


def test_a_revoked_key_is_no_key(site: Site) -> None:
    assert site.decide(ContainerImage=CVMFS).code == statuses.OK
    (site.ep.keys / "current.pem").write_bytes(Key().pem)
    found = site.decide(ContainerImage=CVMFS)
    assert (found.code, "no such key is trusted" in found.message) == (statuses.MANIFEST, True)


def test_the_trace_says_what_was_asked_found_and_fetched(site: Site) -> None:
    found = site.decide(ContainerImage=CVMFS, WantImageForm="sif")
    sif: Version = version(NAME)
    assert sif.sif is not None
    assert found.to_json() == {
        "image": CVMFS,
        "code": 0,
        "why": "it was requested",
        "name": NAME,
        "variant": None,
        "digest": version(NAME).digest,
        "form": "sif",
        "path": found.updates["ContainerImage"],
        "sif_source": str(site.ep.origin),
        "wanted": sif.sif.size,
        "bytes": sif.sif.size,
        "copied": 0,
        "serial": 1,
        "candidate": None,
    }
    again = site.decide(ContainerImage=CVMFS, WantImageForm="sif").to_json()
    assert (again["sif_source"], again["wanted"], again["bytes"], again["copied"]) == (None, 0, 0, 0)
    failed = site.decide(ContainerImage="gone:1").to_json()
    assert (failed["code"], failed["form"], failed["digest"]) == (101, None, None)
    assert "gone:1" in str(failed["why"])


def test_a_former_name_of_the_repository_stays_usable(site: Site, sandbox: str) -> None:
    old = f"/cvmfs/old.example.org/{NAME}"
    assert is_untouched(site.decide(SingularityImage=old)), "nobody knows that name"
    site.changed = {"repository_alias": ["old.example.org"]}
    assert site.image(SingularityImage=old) == sandbox
    assert site.image(SingularityImage=f"/cvmfs/old.example.org/{version(NAME).sandbox}") == sandbox
    assert site.decide(SingularityImage="/cvmfs/old.example.org/htc/none:1").code == statuses.NO_IMAGE
    assert site.decide(SingularityImage="/cvmfs/old.example.org/bad/one:1").code == statuses.BLOCKED


def test_only_jobs_of_a_project_that_the_site_names_leave_their_container(site: Site, sandbox: str) -> None:
    site.changed = {"bypass_project": ["OSG-Staff"], "default_image": NAME}
    assert is_untouched(site.decide(SingularityImage=CVMFS, container_bypass=True, ProjectName="osg-staff"))
    assert is_untouched(site.decide(container_bypass=True, ProjectName="OSG-Staff"))
    assert site.image(SingularityImage=CVMFS, container_bypass=True, ProjectName="Other") == sandbox
    assert site.image(SingularityImage=CVMFS, container_bypass=True) == sandbox
    assert site.image(SingularityImage=CVMFS, ProjectName="OSG-Staff") == sandbox
    site.changed = {}
    assert site.image(SingularityImage=CVMFS, container_bypass=True, ProjectName="OSG-Staff") == sandbox
