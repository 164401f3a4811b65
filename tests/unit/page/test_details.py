"""What an image says of itself, cut to what a page can show, and what changed in its last build."""

from __future__ import annotations

import json

import pytest

from publisher.fileindex.difference import FileChange
from publisher.fileindex.format import IndexedFile
from publisher.page.details import BuildChanges, ImageDetails, labels_of, read_config, summarize

CONFIG = {
    "created": "2026-11-29T10:00:00.123456789Z",
    "config": {
        "Labels": {"b": "2", "a": "<script>"},
        "Env": ["PATH=/bin"],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": "bash",
        "User": "1000",
        "WorkingDir": "/srv",
    },
}


def test_labels_environment_entry_point_and_date_are_read() -> None:
    found = read_config(json.dumps(CONFIG).encode())
    assert found.labels == {"a": "<script>", "b": "2"}
    assert (found.environment, found.entrypoint, found.command) == (("PATH=/bin",), ("/bin/sh", "-c"), ("bash",))
    assert (found.user, found.directory, found.created) == ("1000", "/srv", 1795946400)
    assert ImageDetails.decode(found.encode()) == found


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"config": None},
        {"config": {"Labels": ["a"], "Env": {"a": 1}, "Entrypoint": 7, "User": 7}, "created": "yesterday"},
        {"config": {"Labels": {"a": 1}, "Env": [1, None]}, "created": "9999-99-99"},
        [],
    ],
)
def test_values_of_another_kind_are_left_out(config: object) -> None:
    assert read_config(json.dumps(config).encode()) == ImageDetails()


def test_long_texts_and_long_lists_are_cut() -> None:
    config = {"config": {"Labels": {str(n): "x" * 9999 for n in range(999)}, "Env": ["y" * 9999] * 999}}
    assert read_config(json.dumps({**config, "padding": "z" * (1 << 20)}).encode()) == ImageDetails()
    found = read_config(json.dumps({"config": {"Labels": {str(n): "x" for n in range(999)}, "Env": ["y" * 9999] * 99}}).encode())
    assert (len(found.labels), len(found.environment), len(found.environment[0])) == (200, 99, 2001)


def test_labels_of_a_sandbox_are_read_where_the_config_is_not_at_hand() -> None:
    assert labels_of(b'{"a": "b", "c": 1}').labels == {"a": "b"}
    assert labels_of(b"{") == labels_of(b"[" * 100_000) == ImageDetails()


def line(size: int, kind: str = "f") -> IndexedFile:
    return IndexedFile(kind, b"", 0o644, 0, 0, size, 0, b"")


def test_a_build_is_summarized_with_its_largest_differences_first() -> None:
    changes = [FileChange(b"n%d" % number, None, line(number)) for number in range(60)]
    changes += [
        FileChange(b"gone\xff", line(5000), None),
        FileChange(b"less", line(900), line(100)),
        FileChange(b"d", None, line(0, "d")),
    ]
    found = summarize("sha256:old", changes)
    assert (found.added, found.removed, found.changed, found.size) == (61, 1, 1, sum(range(60)) - 5000 - 800)
    assert found.paths[:3] == (("-", "gone\\xff", 0), ("~", "less", 100), ("+", "n59", 59))
    assert len(found.paths) == 40
    assert BuildChanges.decode(found.encode()) == found
