from __future__ import annotations

import pytest

from publisher.errors import LayerError
from publisher.layers.member import Headers, Member, normalize_path, parse_member
from tests.support.images import raw_tar


def member(name: bytes = b"a", kind: bytes = b"0", pax: dict[bytes, bytes] | None = None, **fields: object) -> Member:
    return parse_member(Headers(raw_tar.header(name, kind, **fields), pax))  # type: ignore[arg-type]  # header's own


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        (b"a/b", b"a/b"),
        (b"./a/b", b"a/b"),
        (b"/a/b/", b"a/b"),
        (b"a//b/./c", b"a/b/c"),
        (b"./", b""),
        (b"/", b""),
        (b".hidden/..a", b".hidden/..a"),
        (b"caf\xe9", b"caf\xe9"),
        (b"a/../b", b"b"),
        (b"a/b/../../c/", b"c"),
        (b"a/..", b""),
    ],
)
def test_names_become_paths_from_the_root(spelled: bytes, name: bytes) -> None:
    assert normalize_path(spelled) == name


@pytest.mark.parametrize("spelled", [b"../a", b"a/../../b", b"/..", b"./../a", b"a\0b", b"a//b\0"])
def test_names_that_lead_out_of_the_root_or_have_a_nul_are_refused(spelled: bytes) -> None:
    with pytest.raises(LayerError):
        normalize_path(spelled)


def test_hard_links_are_paths_from_the_root_too() -> None:
    assert member(b"a", b"1", link=b"/b//c").link == b"b/c"
    assert member(b"a", b"1", link=b"b/../c").link == b"c"
    with pytest.raises(LayerError, match="leads out of the root"):
        member(b"a", b"1", link=b"../../etc/shadow")


def test_symbolic_links_may_have_any_target() -> None:
    assert member(b"a", b"2", link=b"../../etc/shadow").link == b"../../etc/shadow"


@pytest.mark.parametrize("target", [b"", b"x" * 4096, b"a\0b"])
def test_a_target_that_file_systems_do_not_accept_is_refused(target: bytes) -> None:
    with pytest.raises(LayerError, match="target"):
        parse_member(Headers(raw_tar.header(b"a", b"2"), {b"linkpath": target}))


def test_the_root_is_a_directory() -> None:
    assert member(b"./", b"5").name == b""
    with pytest.raises(LayerError, match="root"):
        member(b"./", b"2", link=b"/etc")


@pytest.mark.parametrize("kind", [b"D", b"V", b"M", b"A", b"7", b"8"])
def test_kinds_that_layers_do_not_have_are_refused(kind: bytes) -> None:
    with pytest.raises(LayerError, match="kind"):
        member(kind=kind)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": raw_tar.number(-1)},
        {"name": b"d/", "kind": b"\0", "size": raw_tar.number(-1)},
        {"uid": raw_tar.number(-1, 8)},
        {"gid": raw_tar.number(1 << 32, 8)},
        {"uid": raw_tar.number(0xFFFFFFFF, 8)},
        {"pax": {b"uid": b"4294967295"}},
    ],
)
def test_invalid_sizes_and_owners_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(LayerError, match="invalid size or owner"):
        member(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [b"1e9", b"0x10", b"1.x", b".5", b"--1", b"9" * 21, b"1 "])
def test_invalid_pax_numbers_are_refused(text: bytes) -> None:
    with pytest.raises(LayerError, match="where a number belongs"):
        member(pax={b"mtime": text})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"15", 15),
        (b"+15.99", 15),
        (b"1.", 1),
        (b"-1.5", -2),
        (b"-2.0", -2),
        (b"-0.5", -1),
        (b"-1.0000000009", -1),
        (b"9223372036854775807", (1 << 63) - 1),
        (b"-9223372036854775808", -(1 << 63)),
    ],
)
def test_pax_times_are_rounded_down(text: bytes, seconds: int) -> None:
    assert member(pax={b"mtime": text}).mtime == seconds


def test_users_attributes_and_capabilities_are_kept_and_those_for_root_alone_are_not() -> None:
    kept = {b"SCHILY.xattr.user.a": b"1", b"SCHILY.xattr.security.capability": b"2"}
    others = (b"security.selinux", b"security.ima", b"trusted.b", b"user.rootlesscontainers", b"system.posix_acl_access")
    assert member(pax=kept | {b"SCHILY.xattr." + key: b"x" for key in others}).xattrs == kept


@pytest.mark.parametrize("key", [b"user.a", b"security.capability", b"system.posix_acl_access"])
def test_an_attribute_without_a_value_does_not_exist(key: bytes) -> None:
    empty = member(pax={b"SCHILY.xattr." + key: b""})
    assert (empty.xattrs, empty.acl, empty.reusable) == ({}, False, False)


def test_the_header_of_an_ordinary_entry_is_reused() -> None:
    assert member().replacement_header(0o644, 1_600_000_000) is None
    assert member(pax={b"mtime": b"1600000000.5", b"path": b"./b"}).replacement_header(0o644, 1_600_000_000) is None


@pytest.mark.parametrize("kind", [b"2", b"5", b"6"])
def test_a_size_without_data_is_written_as_zero(kind: bytes) -> None:
    found = member(kind=kind, link=b"x", size=4096, mode=b"0000777\0")
    assert (found.size, found.stored) == (0, 0)
    assert found.replacement_header(0o777, 1_600_000_000) is not None


def test_a_change_of_mode_alone_keeps_the_block() -> None:
    changed = member(mode=b"0000600\0", tail=b"prefix").replacement_header(0o644, 1_600_000_000)
    assert changed is not None
    assert changed[345:351] == b"prefix"


PREFIX = b"usr/lib/python3"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tail": PREFIX, "magic": raw_tar.GNU}, PREFIX + b"/a"),
        ({"tail": PREFIX, "magic": raw_tar.USTAR}, PREFIX + b"/a"),
        ({"tail": PREFIX, "magic": raw_tar.V7}, b"a"),
        ({"tail": b"caf\xe9/of/writers", "magic": raw_tar.GNU}, b"a"),
        ({"tail": b"12345670", "magic": raw_tar.GNU}, b"a"),
        ({"tail": b"13727410000\0" * 2, "magic": raw_tar.GNU}, b"a"),
        ({"tail": bytes(12) + b"not a time", "magic": raw_tar.GNU}, b"a"),
        ({"tail": b"13727410000\0not a time\0\0", "magic": raw_tar.GNU}, b"13727410000/a"),
    ],
)
def test_what_writers_before_go_1_8_put_where_gnu_has_times_is_a_prefix(fields: dict[str, bytes], name: bytes) -> None:
    found = member(**fields)  # type: ignore[arg-type]
    assert found.name == name
    assert found.replacement_header(0o644, 1_600_000_000) is None or fields["magic"] != raw_tar.USTAR


def test_a_pax_size_of_a_file_does_not_make_an_invalid_one_valid() -> None:
    with pytest.raises(LayerError, match="size"):
        member(size=raw_tar.number(-1), pax={b"size": b"7"})
    assert member(b"d", b"5", size=raw_tar.number(-1)).size == 0


def test_the_map_of_a_sparse_file_belongs_to_a_file() -> None:
    with pytest.raises(LayerError, match="not a file"):
        member(b"d", b"5", pax={b"GNU.sparse.map": b"0,1"})


@pytest.mark.parametrize("at", [329, 337])
def test_numbers_that_are_not_used_must_be_numbers(at: int) -> None:
    block = raw_tar.header(b"a")
    with pytest.raises(LayerError, match="where a number belongs"):
        parse_member(Headers(block[:at] + b"z" + block[at + 1 :]))


def test_a_name_of_any_length_is_short_in_a_message() -> None:
    with pytest.raises(LayerError) as caught:
        member(pax={b"path": b"../" + b"n" * 900_000})
    assert "(900003 bytes)" in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(("kind", "what"), [(b"2", "link"), (b"6", "fifo")])
def test_attributes_that_linux_does_not_support_are_refused_with_their_entry(kind: bytes, what: str) -> None:
    with pytest.raises(
        LayerError, match=rf"the layer's {what} b'p' has the attribute b'user\.a', which Linux supports for files .*owner"
    ):
        member(b"p", kind, {b"SCHILY.xattr.user.a": b"1"}, link=b"x")
    assert member(b"p", kind, {b"SCHILY.xattr.security.capability": b"1"}, link=b"x").xattrs
