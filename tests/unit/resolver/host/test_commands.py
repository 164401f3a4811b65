"""The commands that set up a host, with a stand-in for Apptainer; ``tests/system/pool/test_pool_pilot.py`` has the real one."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING

import pytest

from publisher.resolver import cli
from publisher.resolver.cache import start_failures
from publisher.resolver.config import settings
from publisher.resolver.config.commandline import CommandLine
from publisher.resolver.errors import HostError, ResolverUsageError
from publisher.resolver.host import pilot
from publisher.resolver.select import facts
from publisher.resolver.system.notes import Warnings
from tests.support.ep.execution_point import ExecutionPoint, record, sif_content, version

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("own_reads")

NAME = "htc/rocky:9"
CONTENT = sif_content(NAME, 2000)


class Command:
    """``pilot-start`` and the like at an execution point where NAME is published, with a script as Apptainer."""

    def __init__(self, ep: ExecutionPoint) -> None:
        self.ep = ep
        self.apptainer = ep.root / "apptainer"
        self.config = ep.root / "resolver.conf"
        self.notes = Warnings()
        ep.publish(record(NAME, amd64=[version(NAME, sif=ep.store(CONTENT))]), now=int(time.time()))
        self.answers("exit 0")
        places = {"repository": ep.repository, "origin": ep.origin, "cache": ep.cache, "public-key": ep.keys, "arch": "amd64"}
        lines = [f"{name} = {value}" for name, value in {**places, "apptainer": self.apptainer}.items()]
        self.config.write_text("\n".join(["[resolver]", *lines, ""]))

    def answers(self, script: str) -> None:
        self.apptainer.write_text(f"#!/bin/sh\n{script}\n")
        self.apptainer.chmod(0o755)

    def __call__(self, *words: str) -> str:
        self.notes = Warnings()
        return cli.COMMANDS[words[0]](CommandLine([*words, "--config", str(self.config)]), self.notes)

    def attributes(self, *words: str) -> dict[str, str]:
        return dict(re.findall(r"^(\w+) = (.*)$", self(*words), re.MULTILINE))

    def facts(self) -> dict[str, bool | None]:
        written = json.loads((self.ep.cache / "facts.json").read_text())
        return {name: written[name] for name in facts.NAMES}


@pytest.fixture
def command(ep: ExecutionPoint) -> Command:
    return Command(ep)


def test_the_probes_image_is_tried_as_a_sif_and_the_facts_are_written(command: Command) -> None:
    command.answers(f'echo "$@" >> {command.ep.root}/asked')
    found = command.attributes("startd-cron", "--probe", NAME)
    assert (found["HasSIF"], found["ImageResolverSIF"], found["ImageResolverUsable"]) == ("true", "true", "true")
    assert ".sif" in (command.ep.root / "asked").read_text().splitlines()[0]
    assert {**command.facts(), "userns": True} == {"sif": True, "userns": True, "overlay": True, "cvmfs": True}
    assert found["ImageCacheImages"] == "1"


def test_a_sif_may_be_given_by_its_path(command: Command, tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_bytes(CONTENT)
    assert command.attributes("startd-cron", "--probe", str(tmp_path / "x.sif"))["HasSIF"] == "true"
    assert not (command.ep.cache / "sif").exists()


def test_without_an_image_to_try_it_with_nothing_is_claimed(command: Command) -> None:
    found = command.attributes("startd-cron")
    assert {"HasSIF", "ImageResolverUsable", "ImageResolverBinds"} & set(found) == set()
    assert "there is no image to try" in found["ImageResolverProblems"]
    assert (command.facts()["sif"], command.facts()["overlay"]) == (None, None)


def test_an_image_that_is_not_to_be_had_says_nothing_of_the_host(command: Command) -> None:
    found = command.attributes("startd-cron", "--probe", "htc/none:1")
    assert "HasSIF" not in found
    assert "no image 'htc/none:1' is published" in found["ImageResolverProblems"]


def test_where_sifs_do_not_run_sandboxes_may(command: Command) -> None:
    command.answers('case "$*" in *.sif*) echo no FUSE; exit 255;; esac')
    found = command.attributes("startd-cron", "--probe", NAME)
    assert (found["HasSIF"], found["ImageResolverBinds"], found["ImageResolverUsable"]) == ("false", "true", "true")
    assert "SIFs: no FUSE" in found["ImageResolverProblems"]


def test_where_neither_runs_the_machine_is_of_no_use(command: Command) -> None:
    command.answers("exit 255")
    assert command.attributes("startd-cron", "--probe", NAME)["ImageResolverUsable"] == "false"


def test_without_apptainer_nothing_runs(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(command.ep.root / "nowhere"))
    command.config.write_text(command.config.read_text().replace("apptainer =", "# apptainer ="))
    found = command.attributes("startd-cron", "--probe", NAME)
    assert (found["HasSIF"], found["ImageResolverUsable"]) == ("false", "false")
    with pytest.raises(HostError, match="there is no Apptainer"):
        command("condor-config")


def test_jobs_that_did_not_start_make_the_machine_refuse_until_a_probe_succeeds(command: Command) -> None:
    def attributes() -> tuple[str, str]:
        found = command.attributes("startd-cron", "failures")
        return found["ImageResolverFailures"], found["ImageResolverFailing"]

    command("startd-cron")
    assert attributes() == ("0", "false")
    for number in range(3):
        assert attributes() == (str(number), "false")
        start_failures.report(str(command.ep.cache), f"job 1.{number}: test failed", time.time() + 1)
    assert attributes() == ("3", "true")
    assert command.attributes("startd-cron", "failures")["ImageResolverLastFailure"] == '"job 1.2: test failed"'
    command.answers("exit 255")
    command("startd-cron", "--probe", NAME)
    assert attributes() == ("3", "true")
    command.answers("exit 0")
    assert command.facts()["sif"] is False
    facts_file = command.ep.cache / "facts.json"
    command("startd-cron", "--probe", NAME)
    written = json.loads(facts_file.read_text())
    assert written["started"] == written["measured"]
    facts.write(str(facts_file), {}, time.time(), int(time.time()) + 2)  # not before the reports, which are rounded to seconds
    assert attributes() == ("0", "false")


def test_facts_that_cannot_be_written_are_no_reason_to_stop(command: Command) -> None:
    found = command.attributes("startd-cron", "--facts", f"{command.config}/facts.json")
    assert "cannot write" in found["ImageResolverProblems"]


def test_a_cache_that_is_not_ours_is_a_problem_and_no_more(command: Command) -> None:
    command.ep.cache.mkdir()
    command.ep.cache.chmod(0o777)
    found = command.attributes("startd-cron")
    assert "other users may write to the cache" in found["ImageResolverProblems"]
    assert "ImageCacheImages" not in found


def test_a_pilot_adds_its_default_image_to_the_hooks_flags_and_containerises_every_job(command: Command) -> None:
    found = command.attributes("pilot-start", "--default-images", f"1%{NAME}")
    assert found["IMAGE_RESOLVER_FLAGS"] == f"--default-image {NAME}"
    assert found["IMAGE_RESOLVER_EVERY_JOB"] == "true"
    assert found["ImageResolverDefaultImage"] == f'"{NAME}"'
    assert found["HasSIF"] == "true", "the default image is the probe where there is no other"
    assert set(found["STARTD_ATTRS"].split()) == {"$(STARTD_ATTRS)"} | {
        name for name in found if name[0] in "HI" and name[1:2].islower()
    }


def test_a_pilot_without_a_default_image_leaves_jobs_alone_that_name_none(command: Command) -> None:
    found = command.attributes("pilot-start", "--default-images", f"1%{NAME},riscv64")
    assert found["IMAGE_RESOLVER_EVERY_JOB"] == "false"
    assert "IMAGE_RESOLVER_FLAGS" not in found


def test_one_default_image_is_not_drawn(command: Command) -> None:
    said = command("pilot-start", "--default-image", NAME, "--default-images", "1%other")
    assert f"--default-image {NAME}" in said


def test_a_pilot_binds_what_exists(command: Command) -> None:
    repository = command.ep.repository.parent
    found = command.attributes("pilot-start", "--bind", "/etc/hosts", "--bind", "/no/such:/x", "--bind", "/etc:/host-etc:ro")
    assert found["IMAGE_RESOLVER_BINDS"] == f"/etc/hosts,/etc:/host-etc:ro,{repository}:/cvmfs:ro"


def test_an_execution_points_configuration_has_the_sites_settings(command: Command) -> None:
    said = command("condor-config", "--hook-keyword", "SITE", "--extra-arguments", "--nv", "--bind", "/no/such")
    found = dict(re.findall(r"^(\w+) = (.*)$", said, re.MULTILINE))
    assert found["STARTER_JOB_HOOK_KEYWORD"] == "SITE"
    assert found["SITE_HOOK_PREPARE_JOB_ARGS"] == f"prepare-job --config {command.config} $(IMAGE_RESOLVER_FLAGS)"
    assert found["SINGULARITY"] == str(command.apptainer)
    assert found["SINGULARITY_EXTRA_ARGUMENTS"] == '"--nv"'
    assert found["IMAGE_RESOLVER_BINDS"].startswith("/no/such,"), "HTCondor leaves out what does not exist"
    assert found["IMAGE_RESOLVER_EVERY_JOB"] == "false"
    assert "IMAGE_RESOLVER_EVERY_JOB = true" in command("condor-config", "--default-image", NAME)
    drawn = command("condor-config", "--default-images", f"1%{NAME}")
    assert "IMAGE_RESOLVER_EVERY_JOB = false" in drawn, "until pilot-start has drawn one"
    assert not any("HOOK_JOB_EXIT" in name for name in found), "HTCondor would lose the output of every job"


def test_cvmfs_in_its_usual_place_is_bound_as_it_is() -> None:
    assert pilot.wanted_binds(settings.ResolverSettings({"repository-name": ["x.org"]}, "amd64")) == ["/cvmfs"]


def test_the_hook_needs_a_file_to_read_its_settings_from(command: Command) -> None:
    with pytest.raises(ResolverUsageError, match="--config"):
        cli.COMMANDS["condor-config"](CommandLine(["condor-config", "--repository", str(command.ep.repository)]), Warnings())
    with pytest.raises(ResolverUsageError, match="usage"):
        command("condor-config", "elsewhere")


def test_an_access_points_configuration_is_about_this_repository(command: Command) -> None:
    said = command("condor-config", "access-point")
    assert '"^/cvmfs/images[.]example[.]org/"' in said
    assert "HAS_CVMFS_images_example_org" in said


def test_an_access_point_takes_only_sifs_below_the_origins_for_ours(command: Command) -> None:
    places = (
        "--origin",
        "osdf:///ospool/images/",
        "--origin",
        "/var/origin",
        "--mirror",
        "https://m.example.org:8443/x?directread",
    )
    said = command("condor-config", "access-point", *places)
    (expression,) = re.findall(r'regexp\("([^"]*)", string\(ContainerImageFullPath\)\)', said)
    sif = f"sif/ab/{'ab' * 32}.sif"
    for ours in (
        f"osdf:///ospool/images/{sif}",
        f"https://m.example.org:8443/x/{sif}",
    ):
        assert re.search(expression, ours)
    for theirs in (
        "osdf:///ospool",
        "osdf:///ospool/images2",
        "https://m-example.org:8443/x",
        "/var/origin",
        "http://osdf:///ospool/images",
    ):
        assert not re.search(expression, f"{theirs}/{sif}")
    assert not re.search(expression, f"osdf:///ospool/images/{sif}?directread"), "it would stay among the files to transfer"
    assert "\\" not in expression


def test_an_access_point_without_an_origins_url_leaves_sifs_alone(command: Command) -> None:
    said = command("condor-config", "access-point")
    assert "ImageResolverPlace" in said
    assert "ImageResolverSIF" not in said


def test_a_pilots_comments_say_what_is_wrong(command: Command) -> None:
    command.answers("echo no FUSE; exit 255")
    assert "# SIFs: no FUSE" in command("pilot-start", "--probe", NAME).splitlines()


def test_a_wrong_default_image_is_the_sites_mistake(command: Command) -> None:
    with pytest.raises(ResolverUsageError, match="WEIGHT%NAME"):
        command("pilot-start", "--default-images", NAME)


def test_the_environment_may_name_the_file(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_RESOLVER_CONFIG", os.fspath(command.config))
    assert f"--config {command.config}" in cli.COMMANDS["condor-config"](CommandLine(["condor-config"]), Warnings())


def test_the_profile_of_the_ospool_writes_what_the_scripts_did(command: Command) -> None:
    said = command("condor-config", "--profile", "ospool", "--repository-alias", "old.example.org")
    for attribute in ("HAS_SINGULARITY", "SINGULARITY_CAN_USE_SIF", "HAS_CVMFS_old_example_org", "ALLOW_NONCVMFS_IMAGES"):
        assert re.search(rf"^{attribute} = ", said, re.MULTILINE)
        assert re.search(rf"^STARTD_ATTRS = .*\b{attribute}\b", said.replace("\\\n", ""), re.MULTILINE)
    assert "--unknown pull --drop-variable LD_LIBRARY_PATH --drop-variable LD_PRELOAD --drop-variable PYTHONPATH" in said
    assert '"OSG-Staff"' in said
    assert re.search(r"^SINGULARITY_EXTRA_ARGUMENTS = .*:/srv", said.replace("\\\n", ""), re.MULTILINE)
    renamed = command("condor-config", "--profile", "ospool", "--attribute", "HAS_SINGULARITY=HAS_CONTAINERS")
    assert "HAS_CONTAINERS = (ImageResolverUsable =!= false)" in renamed
    assert "HAS_SINGULARITY" not in renamed
    with pytest.raises(ResolverUsageError, match="must be NAME=NAME"):
        command("condor-config", "--profile", "ospool", "--attribute", "HAS_SINGULARITY")
    own = command("condor-config", "--profile", "ospool", "--bypass-project", "Mine", "--drop-variable", "X")
    assert '"mine"' in own
    assert not re.search("OSG-Staff|LD_PRELOAD", own)


def test_the_plain_profile_writes_none_of_it_unless_the_site_asks_for_it(command: Command) -> None:
    said = command("condor-config")
    assert not re.search("HAS_SINGULARITY|ALLOW_NONCVMFS|container_bypass|--unknown|/srv", said)
    assert '"mine,ours"' in command("condor-config", "--bypass-project", "Mine", "--bypass-project", "Ours")


def test_a_pilot_of_the_ospool_takes_over_what_the_glidein_says(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "glidein_config").write_text(
        f"IMAGES_DIR {tmp_path}\nSINGULARITY_DISABLE_PID_NAMESPACES 1\nGLIDEIN_SINGULARITY_BINDPATH /etc/passwd,/absent/at/all\n"
    )
    monkeypatch.setenv("glidein_config", str(tmp_path / "glidein_config"))
    found = command.attributes("pilot-start", "--profile", "ospool", "--default-image", NAME)
    flags = found["IMAGE_RESOLVER_FLAGS"]
    assert f"--default-image {NAME} --cache {tmp_path}/images-" in flags
    assert f"--stop-file {tmp_path}/stop-glidein.stamp" in flags
    assert found["SINGULARITY_USE_PID_NAMESPACES"] == "false"
    assert "/etc/passwd" in found["IMAGE_RESOLVER_BINDS"].split(",")
    assert "/absent" not in found["IMAGE_RESOLVER_BINDS"]
    assert "IMAGE_RESOLVER_FLAGS" not in command.attributes("pilot-start"), "the plain profile reads none of it"


def test_a_machine_on_which_nothing_starts_is_stopped(command: Command, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    flags = ("--probe", NAME, "--stop-file", str(stop))
    command.answers("exit 255")
    command.attributes("startd-cron", *flags)
    assert not stop.exists(), "no job has failed"
    for _ in range(3):
        start_failures.report(str(command.ep.cache), "job 1.0: failed", time.time())
    assert command.attributes("startd-cron", "failures", *flags)["ImageResolverStopped"] == "false"
    command.attributes("startd-cron", *flags)
    assert "no image starts on this host" in stop.read_text()
    assert command.attributes("startd-cron", "failures", *flags)["ImageResolverStopped"] == "true"


def test_an_access_point_knows_the_repositorys_former_names(command: Command) -> None:
    said = command("condor-config", "access-point", "--repository-alias", "old.example.org")
    assert re.findall(r"\^/cvmfs/([^/]*)/", said) == ["images[.]example[.]org", "old[.]example[.]org"]
    assert said.count("HAS_CVMFS_old_example_org") == 1
    assert re.findall(r"^JOB_TRANSFORM_(ImageResolverPlace\d?) ", said, re.MULTILINE) == [
        "ImageResolverPlace",
        "ImageResolverPlace1",
    ]
