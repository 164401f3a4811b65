"""Stacks of layers, each about one rule by which layers become a tree."""

from __future__ import annotations

from tests.support.images.layers import Entry, directory, file, hardlink, symlink

Stack = list[list[Entry]]

CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
"""cap_net_raw+ep, as ``security.capability`` holds it (linux/capability.h)."""
_NOBODY = b"\xff\xff\xff\xff"
ACL = b"\x02\0\0\0" + b"".join(
    tag + b"\0" + permissions + b"\0" + who
    for tag, permissions, who in [
        (b"\x01", b"\x06", _NOBODY),
        (b"\x02", b"\x06", b"\xe8\x03\0\0"),
        (b"\x04", b"\x04", _NOBODY),
        (b"\x10", b"\x06", _NOBODY),
        (b"\x20", b"\x04", _NOBODY),
    ]
)
"""user::rw-, user:1000:rw-, group::r--, mask::rw-, other::r--, as ``system.posix_acl_access`` holds it."""


def attributes(**named: bytes) -> dict[str, str]:
    """Return PAX records of extended attributes; ``user__a`` is ``user.a``."""
    return {f"SCHILY.xattr.{name.replace('__', '.')}": value.decode("utf-8", "surrogateescape") for name, value in named.items()}


_TREE = [directory("d"), directory("d/e"), file("d/f", b"f"), file("d/e/g", b"g"), file("top", b"t")]

_DEEP = [
    *(directory("a"), directory("a/b"), directory("a/b/c"), directory("a/b/c/d")),
    *(file("a/x", b"1"), file("a/b/x", b"2"), file("a/b/c/x", b"3"), file("a/b/c/d/x", b"4"), symlink("a/b/l", "c")),
]


def _deep(path: str, marker: str, order: str) -> Stack:
    """Return a stack with a whiteout of a directory, in the same layer as a new entry below it and one beside it."""
    parent, _, last = path.rpartition("/")
    name = f"{path}/.wh..wh..opq" if marker == "opaque" else f"{parent}/.wh.{last}".lstrip("/")
    layer = [file(f"{path}/new", b"5"), file("beside", b"6")]
    layer.insert({"first": 0, "between": 1, "last": 2}[order], file(name, b""))
    return [_DEEP, layer, [file("a/b/c/later", b"7")]]


ONLY_APPTAINERS: dict[str, Stack] = {
    "file in the way of a directory": [[file("a", b"1"), hardlink("b", "a")], [file("a/x", b"2")]],
    "file in the way of a directory in one layer": [[file("a", b"1"), file("a/x", b"2"), directory("a/d"), file("a/d/y", b"3")]],
    "link to a file in the way of a directory": [[file("f", b"1"), symlink("a", "f")], [file("a/x", b"2")]],
    "fifo in the way of a directory": [[Entry("fifo", "p")], [file("p/q/x", b"2")]],
    "markers below a file": [[file("a", b"1")], [file("a/.wh.x", b""), file("a/.wh..wh..opq", b""), file("a/b/.wh.y", b"")]],
}
"""Stacks that umoci 0.4.7 refuses, and Apptainer, with a newer umoci in it, accepts."""


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
    "directory to symlink, written through afterwards": [
        [directory("d"), file("d/a", b"1"), directory("t"), file("t/b", b"2")],
        [symlink("d", "t")],
        [file("d/new", b"3"), file("d/b", b"4"), directory("d/sub"), hardlink("d/h", "d/new")],
    ],
    "symlink to directory": [
        [directory("t"), file("t/a"), symlink("l", "t")],
        [file(".wh.l", b"")],
        [directory("l"), file("l/b")],
    ],
    "one name of every kind in one layer": [
        [
            *(file("a", b"1"), symlink("a", "b"), file("a", b"2"), directory("a"), file("a/x", b"3"), file("b", b"4")),
            *(hardlink("c", "b"), symlink("c", "b"), directory("c"), Entry("fifo", "e"), file("e", b"5")),
        ]
    ],
    "hard link replaced by a later layer": [[file("a", b"12"), hardlink("b", "a"), hardlink("c", "a")], [file("b", b"3")]],
    "hard link whose directory is removed": [[directory("d"), file("d/a", b"12"), hardlink("b", "d/a")], [file(".wh.d", b"")]],
    "names and targets that just fit": [
        [directory("p" * 155), file("p" * 155 + "/" + "n" * 100, b"1"), file("n" * 100, b"2"), file("n" * 255, b"3")],
        [symlink("s", "t" * 100), symlink("t", "t" * 101), hardlink("h", "n" * 100)],
    ],
    "times before 1970 and after 2038": [
        [file("before", mtime=-1_000_000_000), file("then", mtime=1), file("now", mtime=1_700_000_000)],
        [file("after", mtime=2_200_000_000), file("beyond squashfs", mtime=5_000_000_000), directory("d", mtime=2**32)],
    ],
    "devices of both kinds": [
        [Entry("block", "dev/sda"), Entry("char", "dev/null"), file("dev/file"), hardlink("again", "dev/null")]
    ],
    "a link's own attributes": [[symlink("l", "/" + "t" * 120, uid=3_000_000, pax=attributes(trusted__l=b"1"))]],
    "attributes": [
        [
            *(file("a", pax=attributes(user__a=b"1\n=2", user__b=b"\0\xff")), hardlink("h", "a", pax=attributes(user__z=b"9"))),
            *(
                file("capable", mode=0o755, pax=attributes(security__capability=CAPABILITY)),
                file("gone", pax=attributes(user__a=b"1")),
            ),
            *(directory("d", pax=attributes(user__d=b"1")), Entry("fifo", "p", pax=attributes(trusted__p=b"1"))),
        ],
        [
            file("gone", b"without"),
            directory("d", pax=attributes(user__e=b"2")),
            file("big", pax=attributes(user__big=b"v" * 3000)),
        ],
    ],
    "attributes that are not published": [
        [
            *(file("acl", mode=0o664, pax=attributes(system__posix_acl_access=ACL)),),
            *(
                directory("d", 0o775, pax=attributes(system__posix_acl_default=ACL)),
                file("star", pax={"SCHILY.acl.access": "user::rw-"}),
            ),
            *(
                file("label", pax=attributes(security__selinux=b"system_u:object_r:bin_t:s0")),
                file("overlay", pax=attributes(user__overlay__x=b"y")),
            ),
            *(
                file("rootless", pax=attributes(user__rootlesscontainers=b"\x08\x01")),
                file("bsd", pax={"LIBARCHIVE.xattr.user.a": "MQ=="}),
            ),
        ]
    ],
    "127 layers": [
        [
            file(f"d{number % 7}/{number}", b"%d" % number),
            file(f"d{number % 5}/.wh.{number - 35}", b""),
            file("same", b"%d" % number),
        ]
        for number in range(127)
    ],
} | {
    f"{marker} {path}, {order}": _deep(path, marker, order)
    for marker in ("whiteout of", "opaque")
    for path in ("a", "a/b", "a/b/c", "a/b/c/d", "a/b/l")
    for order in ("first", "between", "last")
}
