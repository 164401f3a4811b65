"""Counts of jobs by name and version, each job once, however often its trace or history is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from publisher.errors import StateDirectoryError, UsageError
from publisher.usage import store as usage_store
from publisher.usage.records import UseCount
from publisher.usage.store import UsageStore, load_usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1795946400
DIGEST, OTHER = (f"sha256:{digit * 64}" for digit in "12")
ROCKY = "htc/rocky:9"


def decision(time: float, name: object = ROCKY, **more: object) -> dict[str, object]:
    return {"time": time, "host": "ep1.example.org", "code": 0, "name": name, "digest": DIGEST, "image": "x", **more}


def job(number: int, ended: int, **attributes: object) -> dict[str, object]:
    values = {"ChirpImageName": ROCKY, "ChirpImageDigest": DIGEST, "LastRemoteHost": f"slot1_{number}@ep{number}.example.org"}
    return {"GlobalJobId": f"ap1.example.org#{number}.0#1", "CompletionDate": ended, **values, **attributes}


def write(path: Path, *decisions: object) -> Path:
    with path.open("a") as file:
        file.writelines(f"{json.dumps(one)}\n" for one in decisions)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[UsageStore]:
    with UsageStore(tmp_path / "usage.sqlite") as store:
        yield store


def known(name: str) -> bool:
    return name.startswith("htc/")


def history(*ads: object) -> bytes:
    return json.dumps(ads).encode()


def test_a_trace_is_counted_once_also_when_it_grows_and_is_rotated(store: UsageStore, tmp_path: Path) -> None:
    path = write(tmp_path / "trace", decision(NOW - 9.5), decision(NOW - 8, host="ep2.example.org", digest=OTHER))
    assert [store.read_trace(path, NOW, known) for _ in range(2)] == [2, 0]
    write(path, decision(NOW - 7))
    path.rename(tmp_path / "trace.1")
    write(path, decision(NOW - 6))
    assert [store.read_trace(tmp_path / name, NOW, known) for name in ("trace.1", "trace", "trace.1", "trace")] == [1, 1, 0, 0]
    found = store.usage()[ROCKY]
    assert found.total == UseCount(4, 2, NOW - 6)
    assert found.versions == {DIGEST: UseCount(3, 1, NOW - 6), OTHER: UseCount(1, 1, NOW - 8)}
    assert store.since() == NOW - 10


def test_only_decisions_that_started_a_published_image_count(store: UsageStore, tmp_path: Path) -> None:
    lines = [
        decision(NOW, code=101),
        decision(NOW, name=None),
        decision(NOW, name=7),
        decision(NOW, name="made/up:1"),
        decision(-1),
        decision(NOW + 10**9),
        decision(True),
        ["no", "object"],
        decision(NOW, digest="<script>", host="<script>"),
    ]
    path = write(tmp_path / "trace", *lines)
    with path.open("ab") as file:
        file.write(b"\xff{\n" + b"x" * 100_000 + b"\n" + json.dumps(decision(NOW)).encode())
    assert store.read_trace(path, NOW, known) == 1
    assert store.usage()[ROCKY].versions == {"": UseCount(1, 0, NOW)}
    with pytest.raises(UsageError, match="missing cannot be read"):
        store.read_trace(tmp_path / "missing", NOW, known)
    (tmp_path / "empty").touch()
    assert store.read_trace(tmp_path / "empty", NOW, known) == 0


def test_a_history_is_counted_once_also_jobs_that_ended_in_its_last_second(store: UsageStore) -> None:
    first = [job(2, NOW - 5), job(1, NOW - 9)]
    assert [store.read_history(history(*first), NOW, known) for _ in range(2)] == [2, 0]
    later = [job(4, NOW - 4), job(3, NOW - 5), *first]
    assert store.read_history("\n".join(map(json.dumps, later)).encode(), NOW, known) == 2
    assert store.read_until() == NOW - 4
    assert store.usage()[ROCKY].total == UseCount(4, 4, NOW - 4)


def test_histories_of_several_access_points_do_not_hide_each_other(store: UsageStore) -> None:
    store.read_history(history(job(1, NOW)), NOW, known)
    other = job(1, NOW - 9, GlobalJobId="ap2.example.org#1.0#1")
    assert store.read_history(history(other), NOW, known) == 1
    assert store.read_until() == NOW - 9


def test_jobs_without_a_time_an_id_or_an_image_do_not_count(store: UsageStore) -> None:
    ads = [
        job(1, 0),
        job(2, NOW, GlobalJobId=None),
        job(3, NOW, ChirpImageName=None),
        job(4, NOW, ChirpImageName="made/up:1"),
        job(5, NOW + 10),
        job(6, 0, EnteredCurrentStatus=NOW - 1),
        7,
    ]
    assert store.read_history(history(*ads), NOW, known) == 1
    with pytest.raises(UsageError, match="not what condor_history -json prints"):
        store.read_history(b"[{", NOW, known)
    assert store.read_history(b"", NOW, known) == 0


def test_a_job_that_trace_and_history_both_have_counts_once(store: UsageStore, tmp_path: Path) -> None:
    store.read_trace(write(tmp_path / "trace", decision(NOW - 9), decision(NOW - 8)), NOW, known)
    store.read_history(history(job(1, NOW - 5)), NOW, known)
    assert store.usage()[ROCKY].total == UseCount(2, 1, NOW - 5)


def test_images_that_jobs_name_by_docker_are_candidates(store: UsageStore, tmp_path: Path) -> None:
    pulled = decision(NOW - 3, name=None, candidate="docker://a/b:1")
    passed_on = decision(NOW - 2, name=None, image="docker://docker.io/a/b:1")
    store.read_trace(write(tmp_path / "trace", pulled, passed_on, decision(NOW, name=None, image="docker://$(x)")), NOW, known)
    ads = [
        job(1, NOW - 1, ChirpImageName=None, ContainerImage="docker://c/d"),
        job(2, NOW - 1, ChirpImageName="docker://c/d:latest"),
    ]
    store.read_history(history(*ads), NOW, known)
    assert list(store.candidates().items()) == [
        ("docker.io/c/d:latest", UseCount(2, 0, NOW - 1)),
        ("docker.io/a/b:1", UseCount(2, 0, NOW - 2)),
    ]


def test_what_is_old_or_made_up_is_forgotten(store: UsageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_store, "_MOST_CANDIDATES", 1)
    ads = [job(n, NOW, ChirpImageName=f"docker://a/b:{n // 2}") for n in (1, 2, 3)]
    store.read_history(history(*ads, job(9, NOW - 401 * 86400, GlobalJobId="ap2#1.0#1")), NOW, known)
    store.trim(NOW)
    assert list(store.candidates()) == ["docker.io/a/b:1"]
    assert store.usage()[ROCKY].total == UseCount(1, 0, NOW - 401 * 86400)


def test_what_a_failed_command_read_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "trace", decision(NOW))
    broken = UsageStore(tmp_path / "usage.sqlite").__enter__()
    broken.read_trace(path, NOW, known)
    broken.__exit__(ZeroDivisionError)
    assert load_usage(tmp_path) == {}
    with UsageStore(tmp_path / "usage.sqlite") as store:
        assert store.read_trace(path, NOW, known) == 1
    assert load_usage(tmp_path)[ROCKY].total.jobs == 1
    assert load_usage(tmp_path / "missing") == {}


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "usage.sqlite").write_text("x" * 5000)
    with pytest.raises(StateDirectoryError, match=r"usage\.sqlite cannot be used"):
        load_usage(tmp_path)
