from __future__ import annotations

import io
import tarfile

import pytest

from publisher.errors import LayerError
from publisher.layers.header import (
    has_valid_checksum,
    make_header,
    padded,
    parse_decimal,
    parse_number,
    parse_pax,
    replace_mode,
)
from tests.support.images import raw_tar


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"    644 ", 0o644),
        (b"\x00000644\0", 0o644),
        (b"00000644", 0o644),
        (b"644\0junk", 0o644),
        (b"\0" * 8, 0),
        (b" " * 8, 0),
        (b"\x80\0\0\0\0\0\x01\0", 256),
        (b"\xff" * 8, -1),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfb", -5),
    ],
)
def test_numbers(field: bytes, value: int) -> None:
    assert parse_number(field) == value


@pytest.mark.parametrize(
    "field",
    [b"0000888\0", b"1_0\0", b"0o17\0", b"-7\0", b"+7\0", b"12 34\0", b"0x1f\0", b"\x80" + b"\xff" * 11, b"\xbf" * 12],
)
def test_invalid_numbers_are_refused(field: bytes) -> None:
    with pytest.raises(LayerError, match="where a number belongs"):
        parse_number(field)


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"7", 7), (b"+7", 7), (b"-7", -7), (b"0" * 5000 + b"7", 7), (b"9223372036854775807", (1 << 63) - 1), (b"-0", 0)],
)
def test_decimal_numbers(text: bytes, value: int) -> None:
    assert parse_decimal(text) == value


@pytest.mark.parametrize("text", [b"", b"7.5", b"1_0", b" 7", b"7\n", b"0x7", b"9223372036854775808", b"9" * 5000])
def test_invalid_decimal_numbers_are_refused(text: bytes) -> None:
    with pytest.raises(LayerError, match="where a number belongs"):
        parse_decimal(text)


def test_sizes_are_rounded_up_to_blocks() -> None:
    assert [padded(size) for size in (0, 1, 512, 513)] == [0, 512, 512, 1024]


@pytest.mark.parametrize("signed", [False, True])
def test_checksums_of_unsigned_and_of_signed_bytes_are_valid(signed: bool) -> None:
    block = raw_tar.header(b"caf\xe9\xff", signed=signed)
    assert has_valid_checksum(block)
    assert not has_valid_checksum(b"d" + block[1:])
    assert not has_valid_checksum(block[:148] + b"nothing\0" + block[156:])


def test_a_sum_that_is_right_only_modulo_adlers_prime_is_wrong() -> None:
    block = raw_tar.header(b"\xff" * 100, magic=b"\xff" * 8, uname=b"\xff" * 32, gname=b"\xff" * 32, tail=b"\xff" * 160)
    assert has_valid_checksum(block)
    assert not has_valid_checksum(block[:148] + b"%06o\0 " % (int(block[148:154], 8) - 65521) + block[156:])


def test_pax_records() -> None:
    body = (
        raw_tar.record(b"path", b"a=b\nc")
        + raw_tar.record(b"path", b"last")
        + raw_tar.record(b"SCHILY.xattr.user.x", b"\0=\n")
        + b"+"
        + raw_tar.record(b"comment", b"a plus is one more byte").replace(b"35", b"36")
    )
    assert parse_pax(body) == {b"path": b"last", b"SCHILY.xattr.user.x": b"\0=\n", b"comment": b"a plus is one more byte"}


def test_pairs_of_the_oldest_sparse_format_become_a_map() -> None:
    pairs = [(b"offset", b"1"), (b"numbytes", b"2"), (b"offset", b"30"), (b"numbytes", b"4")]
    body = b"".join(raw_tar.record(b"GNU.sparse." + key, value) for key, value in pairs)
    assert parse_pax(body) == {b"GNU.sparse.map": b"1,2,30,4"}


@pytest.mark.parametrize(
    "body",
    [
        b"99 path=a\n",
        b"10 path=ab",
        b"8 patha\n",
        b"5 =a\n",
        b"-9 path=a\n",
        b"path=a\n",
        b"a path=a\n",
        b"4 \n\n",
        raw_tar.record(b"path", b"a") + bytes(3),
        raw_tar.record(b"path", b"a\0b"),
        raw_tar.record(b"uname", b"a\0b"),
        raw_tar.record(b"SCHILY.xattr.user.\0", b"1"),
        raw_tar.record(b"GNU.sparse.numbytes", b"1"),
        raw_tar.record(b"GNU.sparse.offset", b"1") * 2,
        raw_tar.record(b"GNU.sparse.offset", b"1,2"),
    ],
)
def test_malformed_pax_records_are_refused(body: bytes) -> None:
    with pytest.raises(LayerError):
        parse_pax(body)


@pytest.mark.parametrize(
    ("name", "link"),
    [
        (b"a", b""),
        (b"n" * 100, b""),
        (b"n" * 101, b""),
        (b"caf\xe9/" + b"n" * 200, b""),
        (b"a", b"/" + b"t" * 99),
        (b"a", b"../" + b"t" * 98),
        (b"n" * 101, b"/" + b"t" * 200),
    ],
)
def test_a_made_header_reads_back(name: bytes, link: bytes) -> None:
    kind = b"2" if link else b"0"
    made = make_header(name, kind, mode=0o4755, uid=3_000_000_000, gid=7, size=0, mtime=1_600_000_000, link=link)
    with tarfile.open(fileobj=io.BytesIO(made + raw_tar.END), errors="surrogateescape") as archive:
        (member,) = archive.getmembers()
    assert (member.name.encode(errors="surrogateescape"), member.linkname.encode()) == (name, link)
    assert (member.mode, member.uid, member.gid, member.mtime) == (0o4755, 3_000_000_000, 7, 1_600_000_000)


def test_a_made_header_takes_sizes_beyond_octal() -> None:
    made = make_header(b"a", b"0", mode=0, size=1 << 40)
    assert parse_pax(made[512 : 512 + parse_number(made[124:136])]) == {b"size": b"%d" % (1 << 40)}


def test_a_long_target_follows_the_pax_records_and_is_in_none_of_them() -> None:
    made = make_header(b"n" * 120, b"2", mode=0o777, link=b"/" + b"t" * 120)
    assert [made[at + 156 : at + 157] for at in (0, 1024, 2048)] == [b"x", b"K", b"2"]
    assert b"linkpath" not in made


def test_other_permission_bits_keep_the_rest_of_a_header() -> None:
    block = raw_tar.header(b"a", mode=b"0000600\0", uid=b"0000017\0")
    changed = replace_mode(block, 0o644)
    assert has_valid_checksum(changed)
    assert (changed[:100], changed[108:148], changed[156:]) == (block[:100], block[108:148], block[156:])
    assert parse_number(changed[100:108]) == 0o644
