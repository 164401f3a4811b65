from __future__ import annotations

import io
import json
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publisher.contract import manifest
from publisher.resolver.cache.pins import STARTER_VARIABLE
from publisher.resolver.config.commandline import CommandLine
from publisher.resolver.errors import ResolverUsageError
from publisher.resolver.hook import main as hook_main
from publisher.resolver.hook import statuses
from publisher.resolver.hook.prepare import prepare_job
from tests.support.ep.execution_point import REPOSITORY, ExecutionPoint, record, sif_content, version
from tests.support.ep.hook import STARTS, job_ad, reply

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.resolver.system.classad import Value
    from tests.support.ep.hook import Reply

pytestmark = pytest.mark.usefixtures("own_reads")

NAME = "htc/rocky:9"
SHA = "0" * 64
PIECES = st.sampled_from(
    [
        *(
            "/",
            "//",
            ":",
            "@",
            ".",
            "..",
            "?",
            " ",
            "\\",
            '"',
            "\0",
            "é",
            "\udcff",
            "%2e",
            "9",
            "x",
            ".sif",
            "htc",
            "rocky",
            NAME,
        ),
        *(f"/cvmfs/{REPOSITORY}/", ".images/", ".arch/amd64/", "docker://", "osdf://", "https://", "hub.example.org/", "sha256:"),
        *(SHA, version(NAME).digest, f"{SHA}.sif"),
    ]
)
IMAGES = st.one_of(st.lists(PIECES, max_size=6).map("".join), st.text(max_size=30))
ADS = st.fixed_dictionaries(
    {},
    optional={
        "ContainerImage": IMAGES,
        "SingularityImage": IMAGES,
        "ContainerImageFullPath": IMAGES,
        "WantImageForm": st.sampled_from(["sif", "sandbox", "auto", "x", ""]),
        "WantContainer": st.booleans(),
    },
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> ExecutionPoint:
    ep = ExecutionPoint(tmp_path_factory.mktemp("site"))
    ep.store(sif_content(NAME))
    ep.publish(record(NAME), now=int(time.time()))
    return ep


def prepare(ep: ExecutionPoint, content: bytes, **changed: str) -> tuple[bytes, float]:
    """The answer and the delay."""
    now = time.monotonic()
    return prepare_job(content, ep.settings(**changed), now, now + 60, 1.0)


@pytest.mark.untraced
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(attributes=ADS, noise=st.binary(max_size=40))
def test_whatever_a_job_says_it_gets_one_sound_answer(
    site: ExecutionPoint, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, Value], noise: bytes
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    told = job_ad(**{name: _told(value) for name, value in attributes.items()})
    found = reply(prepare(site, told + noise.replace(b"=", b""))[0])
    assert found.code in {row[0] for row in statuses.TABLE} - {statuses.BUG}
    if found.code:
        assert found.message
        assert not found.updates
    elif set(STARTS) <= set(found.updates):
        assert str(site.root) in found.image


def _told(value: Value) -> Value:
    """As it can stand in an ad."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def test_a_failure_of_the_host_waits_and_the_users_does_not(site: ExecutionPoint, tmp_path: Path) -> None:
    changed = {"backoff": "10", "cache": str(tmp_path / "cache"), "public_key": str(site.keys)}
    broken = job_ad(ContainerImage=NAME)
    waits = [prepare(site, broken, manifest=str(tmp_path / "absent"), **changed)[1] for _ in range(3)]
    assert waits == [0, 10, 20]
    assert [prepare(site, job_ad(ContainerImage="no/such:1"), **changed)[1] for _ in range(3)] == [0, 0, 0]


def test_what_makes_an_image_doubtful_is_said_to_the_user_too(tmp_path: Path) -> None:
    ep = ExecutionPoint(tmp_path)
    ep.publish(record(NAME), now=int(time.time()) - manifest.LIFETIME - 86400)
    found = reply(prepare(ep, job_ad(ContainerImage=NAME))[0])
    assert found.code == statuses.OK
    assert version(NAME).digest in found.message
    assert "the manifest (serial 1, " in found.message
    assert "expired on " in found.message


def test_a_cache_that_others_may_write_remembers_nothing(site: ExecutionPoint, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    _, delay = prepare(site, job_ad(ContainerImage=NAME), cache=str(cache), backoff="10", manifest=str(tmp_path / "absent"))
    assert delay == 10
    assert list(cache.iterdir()) == []


def test_the_trace_has_a_line_for_each_decision(site: ExecutionPoint, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for image in (NAME, "no/such:1"):
        prepare(site, job_ad(ContainerImage=image), trace=str(trace))
    good, bad = (json.loads(line) for line in trace.read_text().splitlines())
    assert (good["job"], good["owner"], good["image"], good["name"], good["code"]) == ("7.0", "user", NAME, NAME, 0)
    assert good["digest"] == version(NAME).digest
    assert 0 <= good["seconds"] < 60
    assert abs(good["time"] - time.time()) < 3600
    assert (bad["image"], bad["code"], bad["digest"]) == ("no/such:1", statuses.NO_IMAGE, None)


def test_a_sif_is_pinned_by_the_jobs_starter(site: ExecutionPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STARTER_VARIABLE, str(os.getpid()))
    prepare(site, job_ad(ContainerImage=NAME, WantImageForm="sif"))
    assert [path.name for path in (site.cache / "pins").iterdir() if f".{os.getpid()}-" in path.name]


def prepared(ep: ExecutionPoint, **attributes: Value) -> Reply:
    """The reply to a job where LD_LIBRARY_PATH and PYTHONPATH are removed."""
    now = time.monotonic()
    settings = ep.settings(drop_variable=["LD_LIBRARY_PATH", "PYTHONPATH"])
    return reply(prepare_job(job_ad(**attributes), settings, now, now + 60, 1.0)[0])


def test_the_sites_variables_are_removed_from_a_containers_environment(site: ExecutionPoint) -> None:
    image = f"/cvmfs/{REPOSITORY}/{NAME}"
    found = prepared(site, SingularityImage=image, Environment="A='x y' LD_LIBRARY_PATH=/opt B=\"2\"")
    assert found.updates["Environment"] == "A='x y' B=\"2\""
    for attributes in (
        {"SingularityImage": image, "Environment": "MY_PYTHONPATH=1"},
        {"SingularityImage": image},
        {"Environment": "PYTHONPATH=/x"},
    ):
        assert "Environment" not in prepared(site, **attributes).updates
    now, settings = time.monotonic(), site.settings(drop_variable="PYTHONPATH")
    content = job_ad(SingularityImage=image) + b"Environment = \"PYTHONPATH=/x A='a\tb'\"\n"
    odd = reply(prepare_job(content, settings, now, now + 60, 1.0)[0])
    assert "Environment" not in odd.updates
    assert "line feeds or tabs" in odd.message


def test_the_sites_files_are_in_the_scratch_directory_of_each_job(
    site: ExecutionPoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gwms.d").mkdir()
    (tmp_path / ".gwms.d" / "tool").write_text("x")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(scratch)
    assert reply(prepare(site, job_ad(), job_files=str(tmp_path / ".gwms.d"))[0]).code == statuses.OK
    assert (scratch / ".gwms.d" / "tool").read_text() == "x"
    assert reply(prepare(site, job_ad(), job_files=str(tmp_path / "absent"))[0]).code == statuses.OK, "a job starts without them"


def test_a_wrong_configuration_stops_the_machine(site: ExecutionPoint, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    image = job_ad(SingularityImage=f"/cvmfs/{REPOSITORY}/{NAME}")
    prepare(site, job_ad(SingularityImage=f"/cvmfs/{REPOSITORY}/htc/none:1"), stop_file=str(stop))
    assert not stop.exists(), "a user's mistake stops nothing"
    prepare(site, image, stop_file=str(stop), public_key=str(tmp_path / "absent.pem"))
    assert "absent.pem" in stop.read_text()


def test_settings_that_cannot_be_read_stop_it_as_well(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    error = ResolverUsageError("--form 'x' must be one of auto")
    hook_main._stop_machine(None, error)
    hook_main._stop_machine(CommandLine(["prepare-job"]), error)
    assert not stop.exists()
    hook_main._stop_machine(CommandLine(["prepare-job", "--stop-file", str(stop)]), error)
    assert "--form 'x'" in stop.read_text()


def test_a_host_gets_its_variant_and_says_which(ep: ExecutionPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HTCondor does: the machine ad is in the job's scratch directory, and names what the slot has."""
    tags = {"amd64": "plain", "amd64,x86-64-v3": "v3", "amd64,cuda>=12.4": "cuda", "amd64,x86-64-v3,cuda>=12.4": "both"}
    ep.publish(record(NAME, **{platform: [version(tag)] for platform, tag in tags.items()}), now=int(time.time()))
    for tag in tags.values():
        (ep.repository / str(version(tag).sandbox)).mkdir(parents=True, exist_ok=True)
    machine_ad = ep.root / ".machine.ad"
    monkeypatch.setenv("_CONDOR_MACHINE_AD", str(machine_ad))
    trace = ep.root / "trace"
    for text, variant in (
        ('Microarch = "x86_64-v1"', "amd64"),
        ('Microarch = "x86_64-v4"\nGPUs = 0', "amd64,x86-64-v3"),
        ('Microarch = "x86_64-v2"\nGPUs = 1\nGPUs_Capability = 8.0\nGPUs_DriverVersion = 12.4', "amd64,cuda>=12.4"),
    ):
        machine_ad.write_text(f"{text}\n")
        said = reply(prepare(ep, job_ad(ContainerImage=NAME), trace=str(trace))[0])
        assert said.image == f"{ep.repository}/{version(tags[variant]).sandbox}"
        assert f"image {NAME} for {variant} is" in said.message
        line = json.loads(trace.read_text().splitlines()[-1])
        assert (line["name"], line["variant"], line["digest"]) == (NAME, variant, version(tags[variant]).digest)


def test_no_variant_for_this_host_holds_the_job_and_says_what_each_needs(
    ep: ExecutionPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"amd64,x86-64-v4": [version("a")], "amd64,cuda>=12.4": [version("b")]}
    ep.publish(record(NAME, **wanted), now=int(time.time()))
    machine_ad = ep.root / ".machine.ad"
    machine_ad.write_text('Microarch = "x86_64-v3"\nGPUs = 0\n')
    monkeypatch.setenv("_CONDOR_MACHINE_AD", str(machine_ad))
    said = reply(prepare(ep, job_ad(ContainerImage=NAME))[0])
    assert said.code == statuses.ARCHITECTURE
    assert "amd64,cuda>=12.4: it needs a GPU of NVIDIA, and the job has none" in said.message
    assert "amd64,x86-64-v4: it needs x86-64-v4, and this host has x86-64-v3" in said.message
