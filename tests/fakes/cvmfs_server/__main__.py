"""A fake ``cvmfs_server`` that behaves as measured on the real one: it uses a real overlay mount, but not CVMFS's storage.

The directory ``CVMFS_FAKE_ROOT`` has ``cvmfs``, ``spool``, ``etc`` and ``srv`` for what the real program keeps in ``/cvmfs``,
``/var/spool/cvmfs``, ``/etc/cvmfs/repositories.d`` and ``/srv/cvmfs``. It needs root, and mounts in the namespace in which it is
started. Exit codes, messages and the states after a failure are those of the real program. A file ``faults/COMMAND`` makes the
next COMMAND fail (``repository.py`` lists the kinds). Every command is logged to ``log``, one JSON object per line.

It is started for every command, so it imports as little as possible.
"""

from __future__ import annotations

import errno
import os
import sys
import time

sys.path.insert(0, os.path.abspath(f"{__file__}/../../../.."))

from tests.fakes.cvmfs_server import publishing
from tests.fakes.cvmfs_server.gateway import GatewayRepository, has_gateway, named
from tests.fakes.cvmfs_server.repository import Failure, Repository, repositories, root, version

NEVER_ANSWERS = "http://never-answers.invalid"  # the stratum 0 of a repository that makes `list` hang
UNMOUNTED = "(unexpected termination) cannot establish writable mountpoint"
STACK = "{}\n\nStacktrace:\n/lib/libcvmfs_server.so.2.12.0(+0xe62d5) [0x7f323d4bc2d5]\n"


def transaction(arguments: list[str]) -> None:
    template: list[str] = []
    name = None
    while arguments:
        word = arguments.pop(0)
        if word == "-T":
            template = arguments.pop(0).split("=")
        elif word.startswith("-"):
            raise Failure(1, f"Invocation error: transaction: unrecognized parameter '{word}'")
        else:
            name = word
    repository = named(name)
    refuse_transaction(repository)
    repository.follow()
    repository.fault("transaction", "before")
    try:
        with open(f"{repository.spool}/probe", "wb") as file:
            file.write(bytes(4096))
        os.unlink(f"{repository.spool}/probe")
    except OSError as error:
        raise Failure(134, "Aborted") from error
    repository.open_transaction()
    try:
        repository.acquire()
    except Failure:
        os.unlink(repository.flag)
        raise
    if template:
        print(f"CernVM-FS: cloning template {template[0]} --> {template[1]} ...", end=" ", flush=True)
        publishing.clone(repository, *template)
    repository.remount(writable=True)
    repository.fault("transaction", "after")
    repository.log("transaction", clones=int(bool(template)))


def refuse_transaction(repository: Repository) -> None:
    if repository.is_publishing():
        raise Failure(1, STACK.format(f"WARNING: {repository.name} is publishing\n\n    rm -fR {repository.lock}\n\n{UNMOUNTED}"))
    if repository.in_transaction() and not repository.healthy():
        raise Failure(1, STACK.format(f"Repository {repository.name} is in a transaction and cannot be repaired.\n{UNMOUNTED}"))
    if repository.in_transaction():
        raise Failure(errno.EEXIST, "CernVM-FS transaction error: another transaction is already open")
    if not repository.stratum_reachable():
        raise Failure(errno.EIO, "cannot load whitelist [failed to download whitelist]")
    if repository.whitelist_expired():
        raise Failure(errno.EINVAL, "Repository whitelist for $name is expired")
    if not repository.healthy():
        raise Failure(1, STACK.format(UNMOUNTED))


def publish(arguments: list[str]) -> None:
    force = "-f" in arguments
    repository = named(next((word for word in arguments if not word.startswith("-")), None))
    if repository.is_publishing():
        raise Failure(1, f"Another publish process is active for {repository.name}")
    if not repository.stratum_reachable():
        raise Failure(1, f"Repository unavailable under {repository.stratum()}", stdout=True)
    if repository.whitelist_expired():
        raise Failure(1, f"Repository whitelist for {repository.name} is expired!", stdout=True)
    if not repository.in_transaction():
        raise Failure(1, f"Repository {repository.name} is not in a transaction", stdout=True)
    if not repository.healthy():
        raise Failure(1, f"--> Run `cvmfs_server abort {repository.name}` to revert and repair.")
    reading, writing = repository.users()
    if writing:
        raise Failure(1, f"Open writable file descriptors on {repository.name}", stdout=True)
    if reading and not force:
        print("Do you want to proceed anyway? (y/N)", end=" ")
        if sys.stdin.readline().strip().lower() != "y":
            raise Failure(1, "aborted.", stdout=True)
    with repository.publishing_lock(), repository.frozen():
        repository.fault("publish", "before")
        print("Swissknife Sync: Processing changes...", flush=True)
        costs = publishing.publish(repository)
        repository.fault("publish", "after")
        print("Remounting newly created repository revision", flush=True)
        closed = repository.close_transaction(lazy=reading)
    if not closed:
        raise Failure(32, f"mount: {repository.mount}: mount point not mounted or bad option.\n       dmesg(1) may have more")
    repository.log("publish", **costs)


def ingest(arguments: list[str]) -> None:
    """Publish a tar stream. The real program does not unpack it, and aborts its transaction if the stream is not sound."""
    values = {"-t": "", "-b": ""}
    keeps_owners, name = False, None
    while arguments:
        word = arguments.pop(0)
        if word in values:
            values[word] = arguments.pop(0)
        elif word == "-k":
            keeps_owners = True
        else:
            name = word
    repository = named(name)
    refuse_transaction(repository)
    if any(repository.users()):
        raise Failure(1, "aborted.", stdout=True)
    repository.fault("ingest", "before")
    repository.open_transaction()
    repository.remount(writable=True)
    try:
        size = unpack(values["-t"], f"{repository.mount}/{values['-b']}", keeps_owners=keeps_owners)
        with repository.publishing_lock(), repository.frozen():
            costs = publishing.publish(repository)
            repository.fault("ingest", "after")
            closed = repository.close_transaction()
    except (Failure, OSError) as error:
        publishing.discard(repository)
        repository.close_transaction()
        raise Failure(1, f"{error}\nSynchronization failed") from None
    if not closed:
        raise Failure(32, f"mount: {repository.mount}: mount point not mounted or bad option.")
    repository.log("ingest", **{**costs, "bytes": size})


def unpack(stream: str, target: str, *, keeps_owners: bool) -> int:
    """Unpack a stream below a directory, and return its size. Raises Failure if it ends within a member."""
    import tarfile  # noqa: PLC0415 - few commands come here
    import tempfile  # noqa: PLC0415

    if not os.path.isdir(target):
        raise Failure(1, "the real program makes such a directory with the owner 4294967295")
    with tempfile.TemporaryFile() as copy, open(stream, "rb") as file:
        while data := file.read(1 << 20):
            copy.write(data)
        size = copy.tell()
        copy.seek(0)
        if size % tarfile.BLOCKSIZE:
            raise Failure(1, "Fatal error in reading the archive.\nTruncated tar archive")
        if size:
            tarfile.TarFile.extraction_filter = staticmethod(
                lambda member, _path: member
            )  # the default of newer Pythons drops owners
            with tarfile.open(fileobj=copy, mode="r:") as archive:
                for member in archive if not keeps_owners else ():
                    member.uid = member.gid = os.geteuid()
                archive.extractall(target, numeric_owner=True)  # noqa: S202 - the publisher made it
    return size


def abort(arguments: list[str]) -> None:
    force = "-f" in arguments
    repository = named(next((word for word in arguments if not word.startswith("-")), None))
    if not force:
        print(f"You are about to DISCARD ALL CHANGES OF THE CURRENT TRANSACTION for {repository.name}!", end=" ")
        answer = sys.stdin.readline().strip()  # an empty standard input counts as yes
        if answer and answer not in ("y", "Y"):
            raise Failure(errno.EINTR, "")
    if repository.is_publishing():
        raise Failure(errno.EINVAL, f"Could not acquire lock {repository.spool}/is_publishing.lock")
    if not repository.in_transaction():
        repository.drop_lease()
        raise Failure(errno.EINVAL, f"Repository {repository.name} is not in a transaction")
    if not repository.stratum_reachable():
        raise Failure(1, STACK.format("(unexpected termination) cannot load whitelist [failed to download whitelist]"))
    repository.fault("abort", "before")
    repository.drop_lease()
    publishing.discard(repository)
    if not repository.close_transaction():
        raise Failure(5, STACK.format(f"Trying to unmount {repository.published}... fail"))
    repository.log("abort")


def listing(_arguments: list[str]) -> None:
    for repository in repositories():
        flags = ""
        if not os.path.exists(f"{repository.etc}/server.conf"):
            raise Failure(2, f"cvmfs_server: 1: .: cannot open {repository.etc}/server.conf: No such file")
        while repository.stratum() == NEVER_ANSWERS:
            time.sleep(3600)
        if repository.in_transaction():
            flags += " - in transaction"
        if not repository.stratum_reachable():
            flags += " - whitelist unreachable"
        elif repository.whitelist_expired():
            flags += " - whitelist expired"
        if not repository.healthy():
            flags += " - unhealthy"
        print(f"{repository.name} (stratum0 / local{flags}{repository.checked_out()})  ")


def mkfs(arguments: list[str]) -> None:
    (GatewayRepository if has_gateway() else Repository)(arguments[-1]).make()


def mount(arguments: list[str]) -> None:
    for repository in repositories() if "-a" in arguments else [named(arguments[-1])]:
        repository.follow()
        repository.remount(writable=repository.in_transaction())


COMMANDS = {
    "transaction": transaction,
    "publish": publish,
    "ingest": ingest,
    "abort": abort,
    "list": listing,
    "mkfs": mkfs,
    "mount": mount,
}
USAGE = "CernVM-FS Server Tool {}-1\n\nUsage: CVMFS_FAKE_ROOT=DIR cvmfs_server {}"


def main() -> None:
    if not root() or len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(USAGE.format(version(), "|".join(COMMANDS)))
        sys.exit(3)
    try:
        COMMANDS[sys.argv[1]](sys.argv[2:])
    except Failure as failure:
        print(failure.message, file=sys.stdout if failure.stdout else sys.stderr)
        sys.exit(failure.status)


main()
