"""One pass over a tar stream, member by member, that copies kept bytes unchanged.

It is eight times faster than tarfile (one second for 61,000 entries), which reads and writes every member through objects. Here
a kept member whose header mksquashfs accepts as it is stays in the buffer, and is written together with its neighbours.

The stream ends where Go's ``archive/tar`` ends it: at two zero blocks, or at the end of the bytes, which may come after an
extended header or within the padding of a member.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from publisher.errors import LayerError, shown
from publisher.layers.header import BLOCK, Pax, has_valid_checksum, padded, parse_number, parse_pax
from publisher.layers.member import Headers, Member, check_device_and_times, check_numbers, is_portable, parse_member
from publisher.layers.sparse import gnu_map, pax_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from publisher.layers.stream.uncompressed import UncompressedCopy

    Read = Callable[[int], bytes]
    Write = Callable[[memoryview | bytes], object]

_CHUNK = 1 << 20
_EXTENDED_LIMIT = 1 << 20  # bytes of a PAX header or a long name, as in Go's reader
_PORTABLE_SEQUENCES = (b"", b"x", b"L", b"K", b"LK", b"KL")  # of extended headers, which mksquashfs parses as Go does


class Scanner:
    """A reader of a tar stream; the caller calls :meth:`drop` or :meth:`keep` on each member before it reads the next.

    Args:
        read: ``read(n)`` over the uncompressed tar stream.
        write: receives the kept bytes, in portions of any size; not needed if every member is dropped.
        source: the uncompressed copy that ``read`` and ``write`` belong to, None for another stream; from a copy, :meth:`pass_to`
            reads nothing.

    Attributes:
        count: number of members read so far.
    """

    def __init__(self, read: Read, write: Write | None = None, source: UncompressedCopy | None = None) -> None:
        self._read = read
        self._write = write
        self._source = source
        self._buffer = b""
        self._position = 0  # of the next byte to parse
        self._mark = 0  # start of the kept bytes that are not yet written
        self._start = 0  # start of the current member's first header block
        self._base = 0  # offset of the buffer in the stream
        self._stored = 0  # bytes of the current member's data in the archive, without padding
        self.count = 0

    @property
    def offset(self) -> int:
        """Return the offset in the stream of the current member's first header block, bytes."""
        return self._base + self._start

    @property
    def data_offset(self) -> int:
        """Return the offset in the stream of the current member's data, before it is dropped or kept, bytes."""
        return self._base + self._position + BLOCK

    def next_member(self) -> Member | None:
        """Read and return the next member, None at the end of the archive.

        Raises:
            LayerError: the stream is not a tar archive, truncated, malicious, or has a type of entry that layers do not have.
        """
        self._start = self._position
        headers = self._read_headers()
        if headers is None:
            return None
        member = parse_member(headers)
        self._stored = member.stored
        self._parse_sparse_map(member, headers.block, headers.pax)
        self.count += 1
        return member

    def drop(self) -> None:
        """Leave the current member out of the output."""
        self._write_kept(self._start)
        self._position += BLOCK
        self._skip(padded(self._stored), padded(self._stored) - self._stored)
        self._mark = self._position

    def keep(self, member: Member, header: bytes | None, digest: bool) -> bytes:
        """Copy the current member to the output.

        Args:
            member: the current member.
            header: replaces the member's header blocks; None to copy them unchanged.
            digest: compute the sha256 of the content.

        Returns:
            The sha256 of the content, ``b""`` where ``digest`` is false or the member has no content.

        Raises:
            LayerError: the stream ends within the member's data.
        """
        if header is not None:
            self._write_kept(self._start)
            self._write_out(header)
        self._position += BLOCK
        if header is not None:
            self._mark = self._position
        if member.sparse is not None:
            return self._copy_sparse(member)
        if not self._stored:
            return b""
        return self._copy_data(digest)

    def pass_to(self, offset: int, count: int, *, keep: bool) -> None:
        """Pass over whole members without a look at them; then an entry of the stream is next, as its header index says.

        Args:
            offset: offset in the stream of the next entry's first header block, bytes.
            count: number of the entries before it.
            keep: copy the members to the output unchanged; otherwise they are left out.

        Raises:
            LayerError: the stream ends before the offset, or the offset is behind the position.
        """
        remaining = offset - self._base - self._position
        if remaining < 0:
            raise LayerError(f"the layer's entry {count + 1} is not where it was when the layer was downloaded")
        self.count = count
        if self._source is not None and remaining > len(self._buffer) - self._position:
            self._pass_in_file(self._source, remaining, keep=keep)
        elif keep:
            while (available := len(self._buffer) - self._position) < remaining:
                remaining -= available
                self._advance(remaining, 0)
            self._position += remaining
        else:
            self._write_kept(self._position)
            self._skip(remaining, 0)
            self._mark = self._position

    def _pass_in_file(self, source: UncompressedCopy, remaining: int, *, keep: bool) -> None:
        """Pass over more bytes than the buffer has, without reading those that follow it."""
        end = len(self._buffer)
        beyond = remaining - (end - self._position)
        self._write_kept(end if keep else self._position)
        (source.copy if keep else source.skip)(beyond)
        self._base += end + beyond
        self._buffer = b""
        self._position = self._mark = self._start = 0

    def flush(self) -> None:
        """Write the kept bytes that are still in the buffer."""
        self._write_kept(self._position)

    def finish(self) -> None:
        """Write as :meth:`flush` does, then read the stream to its end, because its digest covers all bytes."""
        self.flush()
        while self._read(_CHUNK):
            pass

    # --- headers

    def _read_headers(self) -> Headers | None:
        """Read all header blocks of the next entry, None at the end of the archive; the position is then at the last of them."""
        pax: Pax | None = None
        long_texts: dict[bytes, bytes] = {}
        sequence, portable = b"", True
        while True:
            block = self._peek_header_block()
            if block is None:
                return None
            kind = block[156:157]
            if kind not in (b"x", b"g", b"L", b"K"):
                ambiguous = not portable or sequence not in _PORTABLE_SEQUENCES
                return Headers(block, pax, long_texts.get(b"L"), long_texts.get(b"K"), ambiguous)
            sequence += kind
            check_device_and_times(block)
            if not is_portable(block):
                portable = False
                check_numbers(block)
            body = self._read_extended(block)
            if self._position - self._start > 4 * _EXTENDED_LIMIT:
                raise LayerError(f"the layer's entry {self.count + 1} has too many extended headers")
            if kind in b"xg":
                pax = parse_pax(body)
                if kind == b"g":  # an entry of its own in Go's reader, which takes what precedes it; Docker ignores the entry
                    pax, long_texts = None, {}
            else:
                long_texts[kind] = body.partition(b"\0")[0]

    def _peek_header_block(self) -> bytes | None:
        """Return the header block at the position, None at the end of the archive."""
        if not self._fill(BLOCK):
            if len(self._buffer) > self._position:
                raise LayerError("the layer is not a tar archive, or is truncated within a header")
            self._end()
            return None
        block = self._buffer[self._position : self._position + BLOCK]
        if not block[0] and block.count(0) == BLOCK:
            self._fill(2 * BLOCK)
            second = self._buffer[self._position + BLOCK : self._position + 2 * BLOCK]
            if second.count(0) != len(second):
                raise LayerError("the layer's tar archive continues after a zero block")
            if len(second) % BLOCK:
                raise LayerError("the layer is truncated within the zero blocks at its end")
            self._end()
            return None
        if not has_valid_checksum(block):
            problem = "is damaged" if self.count else "is not a tar archive, or is damaged"
            raise LayerError(f"the layer {problem}: wrong checksum in the header of entry {self.count + 1}")
        return block

    def _end(self) -> None:
        """Move the position to the end of the archive; extended headers before it are not copied."""
        self._write_kept(self._start)
        self._position = self._mark = len(self._buffer)

    def _read_extended(self, block: bytes) -> bytes:
        """Return the body of a PAX header or long name, and move the position behind it."""
        size = parse_number(block[124:136])
        if not 0 <= size <= _EXTENDED_LIMIT:
            raise LayerError(f"the layer has an extended header of {size} bytes, which is not valid")
        whole = BLOCK + padded(size)
        if not self._fill(BLOCK + size):
            raise LayerError("the layer is truncated within an extended header")
        self._fill(whole)
        body = self._buffer[self._position + BLOCK : self._position + BLOCK + size]
        self._position = min(self._position + whole, len(self._buffer))
        return body

    def _parse_sparse_map(self, member: Member, block: bytes, pax: Pax | None) -> None:
        """Set the data segments of a sparse file, and move the position over its map."""
        if block[156:157] == b"S":
            member.sparse, member.size, more = gnu_map(block, self._extension_block)
            self._position += more
        elif member.kind == b"0" and pax and any(key.startswith(b"GNU.sparse.") for key in pax):
            sparse = pax_map(pax, member.size, self._take_data)
            if sparse is not None:
                member.sparse, member.size = sparse
        if member.sparse is not None and sum(length for _, length in member.sparse) != self._stored:
            raise LayerError(f"the layer's sparse file {shown(member.name)} does not have as much data as its map says")

    def _extension_block(self, index: int) -> bytes:
        """Return the n-th block after a GNU sparse header, without moving the position."""
        end = (index + 2) * BLOCK
        if not self._fill(end):
            raise LayerError("the layer is truncated within a sparse header")
        return self._buffer[self._position + end - BLOCK : self._position + end]

    def _take_data(self, size: int) -> bytes:
        """Remove and return the first ``size`` bytes of the member's data, where PAX sparse format 1.0 has its map."""
        if size > min(self._stored, _EXTENDED_LIMIT) or not self._fill(BLOCK + size):
            raise LayerError("the layer is truncated within a sparse map")
        data = self._buffer[self._position + BLOCK : self._position + BLOCK + size]
        self._position += size
        self._stored -= size
        return data

    # --- the buffer

    def _fill(self, size: int) -> bool:
        """Read until the buffer has ``size`` bytes from the position on; return False if the stream ends before."""
        while len(self._buffer) - self._position < size:
            more = self._read(_CHUNK)
            if not more:
                return False
            self._append(self._start, more)
        return True

    def _append(self, keep: int, more: bytes) -> None:
        """Append ``more`` to the buffer, and discard the buffer before ``keep`` after its kept bytes are written."""
        self._write_kept(keep)
        self._buffer = self._buffer[keep:] + more if keep < len(self._buffer) else more
        self._base += keep
        self._position -= keep
        self._start -= keep
        self._mark = max(0, self._mark - keep)

    def _write_kept(self, end: int) -> None:
        """Write the kept bytes up to ``end``."""
        if self._mark < end:
            if self._write is not None:
                self._write(memoryview(self._buffer)[self._mark : end])
            self._mark = end

    def _write_out(self, data: bytes) -> None:
        if self._write is None:
            raise AssertionError("a scanner without an output cannot keep members")
        self._write(data)

    def _skip(self, size: int, padding: int) -> None:
        """Move the position over bytes that are not kept, the last of them padding; kept bytes before them are written."""
        remaining = size
        while (available := len(self._buffer) - self._position) < remaining:
            remaining -= available
            self._mark = len(self._buffer)
            self._advance(remaining, padding)
        self._position += remaining

    def _advance(self, missing: int, padding: int) -> None:
        """Replace a buffer that is used up by the next bytes of the stream; its kept bytes are written.

        Args:
            missing: bytes of the current member that were not read yet.
            padding: those at the member's end that are padding, and may be missing at the end of the archive.
        """
        more = self._read(_CHUNK) or (bytes(missing) if missing <= padding else b"")
        if not more:
            raise LayerError(f"the layer is truncated within the data of entry {self.count}")
        end = len(self._buffer)
        self._write_kept(end)
        self._base += end
        self._buffer = more
        self._position = self._mark = 0
        self._start -= end

    def _copy_data(self, digest: bool) -> bytes:
        """Copy the current member's data; return its sha256, ``b""`` where ``digest`` is false."""
        size, padded_size = self._stored, padded(self._stored)
        if len(self._buffer) - self._position >= padded_size:  # nearly always
            begin = self._position
            self._position += padded_size
            return hashlib.sha256(memoryview(self._buffer)[begin : begin + size]).digest() if digest else b""
        sha256 = hashlib.sha256()
        remaining, content = padded_size, size
        while remaining:
            if len(self._buffer) == self._position:
                self._advance(remaining, padded_size - size)
            portion = min(len(self._buffer) - self._position, remaining)
            if digest:
                sha256.update(memoryview(self._buffer)[self._position : self._position + min(portion, content)])
            content -= min(portion, content)
            remaining -= portion
            self._position += portion
        return sha256.digest() if digest else b""

    def _copy_sparse(self, member: Member) -> bytes:
        """Write a sparse file with its holes filled; mksquashfs detects holes itself and does not support all sparse formats."""
        sha256 = hashlib.sha256()

        def write_hashed(data: memoryview | bytes) -> None:
            sha256.update(data)
            self._write_out(bytes(data))

        written = 0
        for offset, length in member.sparse or ():
            _write_zeros(write_hashed, offset - written)
            remaining = length
            while remaining:
                if len(self._buffer) == self._position:
                    self._mark = self._position
                    self._advance(remaining, 0)
                portion = min(remaining, len(self._buffer) - self._position)
                write_hashed(memoryview(self._buffer)[self._position : self._position + portion])
                self._position += portion
                remaining -= portion
            written = offset + length
        _write_zeros(write_hashed, member.size - written)
        self._write_out(bytes(padded(member.size) - member.size))
        self._mark = self._position
        padding = padded(self._stored) - self._stored
        self._skip(padding, padding)
        self._mark = self._position
        return sha256.digest()


def _write_zeros(write: Write, count: int) -> None:
    block = bytes(min(count, _CHUNK))
    while count > 0:
        write(block[:count] if count < len(block) else block)
        count -= len(block)
