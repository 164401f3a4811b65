"""The owners of uploads that were left behind."""

from __future__ import annotations

import socket
import time

import pytest

from publisher.targets.pelican import owner

BOOT = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
ME = owner.this_process()


@pytest.mark.parametrize(
    ("who", "modified", "dead"),
    [
        (ME, BOOT, False),
        (ME._replace(start=ME.start - 1), None, True),
        (ME._replace(boot="0" * 8), BOOT - 3600, True),
        (ME._replace(boot="0" * 8), BOOT + 60, False),
        (ME._replace(boot="0" * 8), None, False),
        (ME._replace(host="0" * 16, boot="0" * 8), BOOT - 3600, False),
    ],
    ids=["ours", "of who had our number", "before our boot", "a twin of this host", "of any age", "another host"],
)
def test_only_a_process_of_this_host_is_known_to_be_dead(who: owner.UploadOwner, modified: float | None, dead: bool) -> None:
    assert ME.knows_dead(who.new_upload_name(), modified) is dead


def test_hosts_with_one_machine_id_are_told_apart_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert owner.this_process().host != ME.host
