"""Which squasher this host has."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from publisher.build.squash.own_squasher import OwnSquasher
from publisher.build.squash.programs import LEVELS, Mksquashfs, ProgramSquasher, Squasher, Tar2sqfs
from publisher.errors import CommandError, PublisherError
from publisher.squashfs.libzstd import Libzstd

if TYPE_CHECKING:
    from publisher.system.command import UnixAccount

_log = logging.getLogger(__name__)


def find_squasher(compression: str = "zstd", account: UnixAccount | None = None, *, level: int | None = None) -> Squasher:
    """Return the squasher of this host.

    It is this program itself for zstd, together with a program for very large images: mksquashfs, or tar2sqfs where mksquashfs
    is missing or too old. For gzip it is the program alone.

    Args:
        compression: ``zstd`` or ``gzip``.
        level: level of the compression, None for the usual one.
        account: the account that a program runs as (needs root), None for this process's.

    Raises:
        PublisherError: no program can be used.
    """
    program = _find_program(compression, account, level)
    squasher: Squasher = program
    if compression == "zstd":  # compressed by the program's own library, so that all SIFs of a host are by one version
        try:
            squasher = OwnSquasher(program, Libzstd(program.library or "libzstd.so.1"), level or LEVELS[compression])
        except (OSError, AttributeError) as error:
            _log.info("libzstd cannot be loaded, so %s squashes, which takes longer: %s", program.name, error)
    _log.debug("squashfs images are made by %s %s with %s", squasher.name, squasher.version, squasher.compression)
    return squasher


def _find_program(compression: str, account: UnixAccount | None, level: int | None) -> ProgramSquasher:
    try:
        return Mksquashfs(compression, level=level, account=account)
    except PublisherError as error:
        try:
            squasher = Tar2sqfs(compression, level=level, account=account)
        except CommandError:
            raise error from None
        _log.debug("tar2sqfs is used instead of mksquashfs: %s", error)
        return squasher
