from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

import pytest
from click.testing import CliRunner

from publisher.build.parallel import ParallelBuilder
from publisher.cli.assembly import builder
from publisher.cli.assembly import run as assemble
from publisher.cli.assembly.builder import open_builder
from publisher.cli.commands.operate import block_command
from publisher.cli.state_directory import lock_state
from publisher.errors import SpaceError, StateDirectoryError, UsageError
from publisher.plan.make import make_plan
from publisher.settings.sources import load_settings
from publisher.state import paths
from publisher.system import shield
from tests.support.publisher.built_values import answer, digest, entry
from tests.support.publisher.prepublished import Place
from tests.support.publisher.recorded_sync import Intake, Quiet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from publisher.publish.report import RunReport
    from publisher.settings.settings import PublisherSettings


class WithStore(Intake):
    """An intake with the parts that a whole run uses."""

    @property
    def store(self) -> WithStore:
        return self

    def trim(self, size: int, keep: Sequence[str]) -> None: ...

    def warnings(self) -> list[str]:
        return []


def test_garbage_is_collected_after_a_full_disk_stopped_the_run(tmp_path: Path) -> None:
    """Nothing else makes room."""
    place = Place(tmp_path)
    place.now = 1_600_000_000
    publication = place.publication()
    for text in ("one", "two"):
        place.publish(publication, (entry("htc/rocky:9"), answer(text)))
    snapshot, _ = publication.open()
    other = entry("htc/other:1")
    report = assemble.run_sync(
        load_settings({"state": str(tmp_path / "state"), "test_account": "nobody"}, {}),
        make_plan([other], {other.name: answer("other")}, snapshot, whole=False),
        snapshot,
        intake=WithStore({other.name: SpaceError("no room left")}),  # type: ignore[arg-type]  # the part of it that is used
        publication=publication,
        display=Quiet(),
        collect=True,
    )
    assert not place.repository.exists(paths.sandbox_path(digest("one linux/amd64")))
    assert isinstance(report.stopped, SpaceError), "it is reported all the same"
    assert (report.serial, len(report.cleared)) == (3, 2)


def test_no_builder_is_opened_where_nothing_is_built_and_nothing_left_of_other_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_settings: PublisherSettings) -> NoReturn:
        raise UsageError("mksquashfs is missing")

    monkeypatch.setattr(builder, "open_builder", refuse)
    place = Place(tmp_path)
    snapshot = place.publish(place.publication(), (entry("htc/rocky:9"), answer("one"))).snapshot
    left = tmp_path / "state" / "builds" / "of-a-killed-run"

    def sync() -> RunReport:
        publication = place.publication()
        return assemble.run_sync(
            load_settings({"state": str(tmp_path / "state"), "test_account": "nobody"}, {}),
            make_plan([entry("htc/rocky:9")], {"htc/rocky:9": answer("one")}, publication.open()[0], whole=True),
            snapshot,
            intake=WithStore({}),  # type: ignore[arg-type]  # the part of it that is used
            publication=publication,
            display=Quiet(),
            collect=False,
        )

    assert sync().stopped is None
    left.mkdir(parents=True)
    with pytest.raises(UsageError, match="mksquashfs is missing"):
        sync()


def test_build_processes_are_started_before_the_first_layer_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Started(Exception):  # noqa: N818 - ends the run where it is known
        pass

    def start(_builder: ParallelBuilder, images: int) -> NoReturn:
        raise Started(images)

    monkeypatch.setattr(ParallelBuilder, "start", start)
    place = Place(tmp_path)
    snapshot, _ = place.publication().open()
    other = entry("htc/other:1")
    with pytest.raises(Started, match="1"):
        assemble.run_sync(
            load_settings({"state": str(tmp_path / "state"), "test_account": "nobody"}, {}),
            make_plan([other], {other.name: answer("other")}, snapshot, whole=False),
            snapshot,
            intake=WithStore({}),  # type: ignore[arg-type]  # the part of it that is used
            publication=place.publication(),
            display=Quiet(),
            collect=False,
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: programs with root's rights; only root starts them")
def test_nothing_is_built_where_programs_of_root_could_read_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shield, "_missing_namespaces", lambda: "unshare failed")
    settings = load_settings({"state": str(tmp_path / "state"), "key": str(tmp_path / "key"), "test_account": "nobody"}, {})
    with pytest.raises(UsageError, match=r"could read .*/key, because this host allows no mount namespaces") as refused:
        open_builder(settings).__enter__()
    assert "as the owner of the repository" in str(refused.value.hint)
    assert not (tmp_path / "state").exists()


def test_a_block_during_a_run_says_how_to_stop_the_run(tmp_path: Path) -> None:
    place = Place(tmp_path)
    snapshot = place.publish(place.publication(), (entry("htc/rocky:9"), answer("one"))).snapshot
    flags = [f"--{name}={tmp_path / path}" for name, path in (("repository", "cvmfs"), ("origin", "osdf"), ("key", "key"))]
    block = ["htc/rocky:9", "--reason=stolen data", f"--state={tmp_path / 'state'}", *flags]
    with lock_state(tmp_path / "state"):
        refused = CliRunner().invoke(block_command, block)
    assert isinstance(refused.exception, StateDirectoryError)
    assert "systemctl stop ospool-image-publisher" in str(refused.exception)
    assert place.publication().open()[0].serial == snapshot.serial
