"""No pushed image is lost while another run is under way, and two syncs never run at once."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from publisher.contract.reference import parse
from publisher.errors import ANOTHER_RUN, CommandError, UsageError
from publisher.images import reader
from publisher.watch.authentication import read_secrets
from publisher.watch.pending import PendingPushes
from publisher.watch.runner import SyncRunner, run_sync_process
from publisher.watch.selection import select_names
from publisher.watch.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from publisher.images.entry import ImageList

LIST = reader.parse(
    b"""\
version: 1
images:
  - quay.io/htc/rocky:9
  - image: quay.io/htc/pinned:1@sha256:%b
  - image: quay.io/htc/tags
    tags: ["1.*"]
    keep: 2
  - image: quay.io/htc/torch:1
    variants:
      - {image: quay.io/htc/torch-cuda:1, when: nvidia-gpu}
      - {image: quay.io/htc/torch:1}
"""
    % (b"0" * 64),
    "images.yaml",
)
ROCKY, TAG = parse("quay.io/htc/rocky:9"), parse("quay.io/htc/tags:1.7")


def test_pushed_images_stand_for_the_names_of_the_list(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "publisher")
    pushed = [*map(parse, ("quay.io/htc/torch-cuda:1", "quay.io/htc/pinned:1", "docker.io/htc/rocky:9", "quay.io/htc/tags:2"))]
    found = select_names(LIST, [TAG, ROCKY, *pushed])
    assert found.batches() == [("htc/rocky:9", "htc/torch:1"), ("htc/tags:1.7",)]
    assert "docker.io/htc/rocky:9 was pushed, but it is not in the list" in caplog.text
    assert select_names(LIST, []).batches() == []


class Runner:
    """A runner whose syncs end as a test says."""

    def __init__(self, where: Path, *ends: int | Exception) -> None:
        self.pending = PendingPushes(where / "pushed.json")
        self.ends = list(ends)
        self.synced: list[Sequence[str]] = []
        self.running = 0
        self.pauses: list[float] = []
        self.list: ImageList | Exception = LIST
        self.runner = SyncRunner(self.pending, self.load, self.sync, is_running=lambda: self.running > 0, pause=self.pause)

    def load(self) -> ImageList:
        if isinstance(self.list, Exception):
            raise self.list
        return self.list

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.running -= 1

    def sync(self, names: Sequence[str]) -> int:
        assert self.running <= 0, "two syncs at once"
        self.synced.append(names)
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


def test_a_push_waits_for_another_run_and_is_then_synced(tmp_path: Path) -> None:
    made = Runner(tmp_path, ANOTHER_RUN, 0)
    made.running = 3
    made.pending.add([ROCKY, ROCKY])
    made.runner.run_next()
    assert made.synced == [("htc/rocky:9",), ("htc/rocky:9",)], "the first met a run that began in between"
    assert len(made.pauses) == 4
    made.runner.run_next(timeout=0)
    assert len(made.synced) == 2


@pytest.mark.parametrize("end", [1, 2, 4, CommandError("publisher sync failed with status 3")])
def test_a_sync_that_fails_is_left_to_the_timer(tmp_path: Path, end: int | Exception) -> None:
    made = Runner(tmp_path, end)
    made.pending.add([ROCKY])
    made.runner.run_next()
    made.runner.run_next(timeout=0)
    assert len(made.synced) == 1


def test_a_list_that_is_not_valid_is_left_to_the_timer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Runner(tmp_path)
    made.list = UsageError("images.yaml cannot be read")
    made.pending.add([ROCKY])
    made.runner.run_next()
    assert made.synced == []
    assert "images.yaml cannot be read" in caplog.text


def test_a_restart_finds_what_was_waiting_and_what_was_being_synced(tmp_path: Path) -> None:
    path = tmp_path / "pushed.json"
    pending = PendingPushes(path)
    pending.add([ROCKY])
    assert pending.take() == [ROCKY]
    pending.add([TAG, ROCKY])  # pushed once more during its sync
    assert PendingPushes(path).take() == [ROCKY, TAG]
    pending.done()
    assert PendingPushes(path).take() == [TAG, ROCKY]
    assert pending.take() == [TAG, ROCKY]
    pending.done()
    assert PendingPushes(path).take(timeout=0) == []


@pytest.mark.parametrize("content", ["{", "7", '["A/b"]'])
def test_a_damaged_file_is_an_empty_one(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pushed.json"
    path.write_text(content)
    assert PendingPushes(path).take(timeout=0) == []


def test_more_than_can_wait_is_refused_and_a_full_disk_is_not_fatal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pending = PendingPushes(tmp_path / "missing" / "pushed.json")
    assert pending.add([ROCKY])
    assert "cannot be written" in caplog.text
    assert not pending.add(parse(f"quay.io/a/b:{number}") for number in range(10_000))
    assert pending.take() == [ROCKY]


def program(said: str, status: int = 0) -> list[str]:
    return [sys.executable, "-c", f"import sys; print({said!r}); sys.stderr.write('no such name'); sys.exit({status})"]


def test_the_log_says_what_became_of_pushed_images(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "publisher")
    report = json.dumps({"images": [{"name": "htc/rocky:9", "result": "published", "reason": "new"}]})
    assert run_sync_process(program(report), {}, ["htc/rocky:9"]) == 0
    assert "htc/rocky:9: published: new" in caplog.text
    assert run_sync_process(program("", 2), {}, ["htc/rocky:9"]) == 2
    assert "ended with status 2: no such name" in caplog.text
    assert run_sync_process(program("", ANOTHER_RUN), {}, ["htc/rocky:9"]) == ANOTHER_RUN
    with pytest.raises(CommandError, match="failed with status 3"):
        run_sync_process(program("", 3), {}, ["htc/rocky:9"])


def test_a_bucket_gives_as_many_as_its_rate() -> None:
    now = [0.0]
    bucket = TokenBucket(2, lambda: now[0])
    assert [bucket.take(), bucket.take(), bucket.take()] == [0, 0, 30]
    now[0] = 30
    assert [bucket.take(), bucket.take()] == [0, 30]
    now[0] = 1000
    assert [bucket.take(), bucket.take(), bucket.take()] == [0, 0, 30]


def test_secrets_have_a_line_each_and_are_long(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    path.write_text("0123456789abcdef\n\n fedcba9876543210 \n")
    assert read_secrets(path) == ("0123456789abcdef", "fedcba9876543210")
    for content in (b"", b"short\n", b"0123456789abcdef\nshort\n"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="no secret, or one that is too short"):
            read_secrets(path)
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_secrets(path)
