"""Stacks of layers made by hand, each about one rule of how layers become a tree."""

from __future__ import annotations

from tests.support.layers import Entry, directory, file, hardlink, symlink

Stack = list[list[Entry]]

_TREE = [directory("d"), directory("d/e"), file("d/f", b"f"), file("d/e/g", b"g"), file("top", b"t")]

STACKS: dict[str, Stack] = {
    "no layers' entries": [[], [file("a")], []],
    "later layer wins": [[file("a", b"1")], [file("a", b"22", mode=0o755, mtime=1_500_000_000)]],
    "last of two entries in one layer wins": [[file("a", b"1"), file("a", b"22"), directory("d", 0o700), directory("d", 0o750)]],
    "whiteout of a file": [_TREE, [file("d/.wh.f", b"")]],
    "whiteout of a directory": [_TREE, [file(".wh.d", b"")]],
    "whiteout before its replacement": [_TREE, [file(".wh.d", b""), directory("d"), file("d/new")]],
    "whiteout after its replacement": [_TREE, [directory("d"), file("d/new"), file(".wh.d", b"")]],
    "whiteout of what is not there": [[file("a")], [file(".wh.b", b""), file("x/y/.wh.z", b"")]],
    "whiteout in its own layer keeps the file": [[directory("d")], [file("d/a"), file("d/.wh.a", b"")]],
    "opaque directory": [_TREE, [directory("d"), file("d/.wh..wh..opq", b""), file("d/new")]],
    "opaque marker last": [_TREE, [directory("d"), file("d/new"), file("d/e/new"), file("d/.wh..wh..opq", b"")]],
    "opaque deep down": [[*_TREE, directory("d/e/h"), file("d/e/h/i")], [file("d/e/.wh..wh..opq", b""), file("d/e/h/j")]],
    "opaque root": [_TREE, [file(".wh..wh..opq", b""), file("only")]],
    "file to directory and back": [[file("a", b"1")], [directory("a"), file("a/b")], [file("a", b"2")]],
    "directory to symlink": [[directory("a"), file("a/b"), directory("c")], [symlink("a", "c")]],
    "written through a symlinked directory": [[directory("usr/bin"), symlink("bin", "usr/bin")], [file("bin/new")]],
    "written through an absolute symlink": [
        [directory("t"), symlink("l", "/t")],
        [file("l/new"), directory("l/sub"), file("l/sub/x")],
    ],
    "written through a symlink that climbs out": [[directory("t"), symlink("d/l", "../../../t")], [file("d/l/new")]],
    "written through a dangling symlink": [[symlink("l", "no/where")], [file("l/new")]],
    "symlinked directory in the way of a directory": [
        [directory("t"), file("t/x"), symlink("l", "t")],
        [directory("l"), file("l/y")],
    ],
    "whiteout through a symlink": [[directory("t"), file("t/x"), file("t/y"), symlink("l", "t")], [file("l/.wh.x", b"")]],
    "hard link in a layer": [[file("a", b"12", mode=0o600), hardlink("b", "a"), hardlink("d/c", "b")]],
    "hard link across layers": [[file("a", b"12")], [hardlink("b", "a")], [hardlink("c", "b")]],
    "target of a hard link removed later": [[file("a", b"12"), hardlink("b", "a")], [file(".wh.a", b"")]],
    "target of a hard link replaced later": [[file("a", b"12"), hardlink("b", "a")], [file("a", b"3")]],
    "hard link replaced by a file in one layer": [[file("a", b"12"), hardlink("b", "a"), file("b", b"own")]],
    "hard link to a symlink": [[symlink("s", "x"), hardlink("t", "s")]],
    "hard link before an opaque marker": [_TREE, [hardlink("d/h", "d/f"), file("d/.wh..wh..opq", b"")]],
    "hard link before a whiteout of its own name": [_TREE, [hardlink("d/h", "d/f"), file("d/.wh.h", b"")]],
    "hard link through a symlinked directory": [[directory("t"), file("t/x", b"1"), symlink("l", "t")], [hardlink("h", "l/x")]],
    "hard link in a replaced directory": [[directory("d"), file("d/a", b"1")], [hardlink("b", "d/a"), file(".wh.d", b"")]],
    "parents without entries": [[file("a/b/c/d")], [file("a/x")]],
    "names spelled otherwise": [[directory("./"), directory("./d/"), file("./d/a"), file("/abs"), file("d//b"), file("d/./c")]],
    "long names": [
        [directory("n" * 150), file("n" * 150 + "/" + "m" * 200)],
        [symlink("n" * 150 + "/" + "l" * 200, "/" + "t" * 180), hardlink("h" * 120, "n" * 150 + "/" + "m" * 200)],
    ],
    "long targets": [[symlink("s", "/" + "t" * 180), symlink("u", "../" * 50 + "x"), symlink("\udce9", "/\udce9")]],
    "names that are not UTF-8": [[file("caf\udce9"), directory("\udcff"), file("\udcff/ "), symlink("l", "\udce9")]],
    "set-user-ID, sticky, closed": [
        [file("su", mode=0o4755), file("sg", mode=0o2711), directory("t", 0o1777), file("no", mode=0), directory("shut", 0o700)]
    ],
    "owners": [[file("a", uid=1000, gid=70000), directory("d", uid=3_000_000_000, gid=5), symlink("s", "a", uid=7, gid=8)]],
    "fifos": [[Entry("fifo", "p", mode=0o600), hardlink("q", "p")]],
    "times": [
        [file("old", mtime=0), file("new", mtime=1_790_000_000), directory("d", mtime=5)],
        [file("d/x", mtime=1_000_000_000)],
    ],
    "a directory's entry after its content": [[file("d/x"), directory("d", 0o750, mtime=1_400_000_000)]],
    "a directory's mode changed by a later layer": [
        [directory("d", 0o700), file("d/x")],
        [directory("d", 0o755, mtime=1_500_000_000)],
    ],
    "owners' names that this host gives other numbers": [
        [file("a", uid=12, gid=34, uname="daemon", gname="daemon"), directory("d", uid=0, gid=7, uname="root", gname="root")]
    ],
    "devices and reserved names": [
        [
            Entry("char", "null"),
            file(".cvmfscatalog"),
            directory(".cvmfs"),
            file(".cvmfs/x"),
            file(".wh..wh.aufs", b""),
            file("a"),
        ]
    ],
}
