"""Random stacks of layers, with few names, so that layers conflict, and all kinds of entries that affect the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.support.images.layers import Entry, directory, file, hardlink, symlink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

_DIRECTORIES = st.lists(st.sampled_from(["a", "b", "l"]), max_size=2)
_LEAVES = st.sampled_from(["x", "y", "z", "x", "y", "z", "a", "l"])  # now and then the name of a directory
_MODES = st.sampled_from([0o644, 0o755, 0o600, 0o4711])
_TIMES = st.integers(min_value=1, max_value=1_700_000_000)
_CONTENTS = st.sampled_from([b"", b"1", b"22"])
_KINDS = st.sampled_from(["file", "file", "directory", "directory", "symlink", "hardlink", "whiteout", "opaque"])


@st.composite
def _entry(draw: DrawFn, known: Sequence[str]) -> Entry:
    """Draw an entry; ``known`` are the names of earlier files, as targets of links and whiteouts."""
    kind = draw(_KINDS)
    parents = draw(_DIRECTORIES)
    path = "/".join([*parents, draw(_LEAVES)])
    met = draw(st.sampled_from(known)) if known else path
    if kind == "file":
        return file(path, draw(_CONTENTS), mode=draw(_MODES), mtime=draw(_TIMES))
    if kind == "directory":
        return directory("/".join(parents) or "b", draw(_MODES) | 0o700, mtime=draw(_TIMES))
    if kind == "symlink":
        return symlink(draw(st.sampled_from([path, "l", "a/l"])), draw(_targets(parents)), mtime=draw(_TIMES))
    if kind == "hardlink" and known:
        return hardlink(path, met)
    if kind == "opaque":
        return file("/".join([*parents, ".wh..wh..opq"]), b"")
    parent, _, last = draw(st.sampled_from([path, met, "/".join(parents) or "a"])).rpartition("/")
    return file(f"{parent}/.wh.{last}".lstrip("/"), b"")


def _targets(parents: Sequence[str]) -> SearchStrategy[str]:
    path = "/".join(parents) or "."
    return st.sampled_from([path, f"/{path}", f"../{path}", "..", "a", "b", "/b/a", "nowhere"])


@st.composite
def stacks(draw: DrawFn) -> list[list[Entry]]:
    """Draw one to four layers of up to seven entries."""
    known: list[str] = []
    layers = []
    for size in draw(st.lists(st.integers(min_value=0, max_value=7), min_size=1, max_size=4)):
        layer = []
        for _ in range(size):
            entry = draw(_entry(known))
            if entry.kind in ("file", "symlink") and ".wh." not in entry.name:
                known.append(entry.name)
            layer.append(entry)
        layers.append(layer)
    return layers
