"""Signatures on the manifest's index, checked with the ``openssl`` program: no host is without it, and Python has none built in.

A trusted key is a public key in a PEM file. Its id is the sha256 of its SubjectPublicKeyInfo in DER, so it needs no name and
nobody can claim another's. A key is trusted by being there and revoked by removing its file.
"""

from __future__ import annotations

import binascii
import hashlib
import os
import select
import time

from publisher.contract.errors import ExpectedError, ManifestError
from publisher.contract.manifest import unseal
from publisher.resolver.errors import ResolverUsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEADLINE = 10.0
"""Seconds for openssl, which needs a hundredth of one."""
_MOST_SIGNATURES = 16  # of one index: each may cost a process, and the list is an attacker's before it is checked
_MOST_KEY_BYTES = 16 << 10
_KEY_NAMES = (".pem", ".pub")
_BEGIN, _END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"


def load_keys(paths: Iterable[str]) -> dict[str, bytes]:
    """The trusted keys: key id (64 hex) -> PEM.

    Args:
        paths: files with one public key each, and directories of such files (``*.pem``, ``*.pub``).

    Raises:
        ResolverUsageError: a file that is no public key, or no key at all.
    """
    keys = {}
    for path in paths:
        for file in _key_files(path):
            keyid, pem = _read_key(file)
            keys[keyid] = pem
    if not keys:
        raise ResolverUsageError("no trusted key", hint="--public-key FILE, or a directory with *.pem or *.pub files")
    return keys


def verified(content: bytes, keys: Mapping[str, bytes], deadline: float = DEADLINE) -> bytes:
    """The payload of an index's envelope, which at least one trusted key has signed.

    Args:
        content: the bytes of ``index.json``.
        keys: as :func:`load_keys` gives them.
        deadline: seconds for each run of openssl.

    Raises:
        ManifestError: no envelope, unsigned, signed by unknown keys only, or by a known one over other bytes.
        ExpectedError: openssl is missing or stuck.
    """
    payload, signatures = unseal(content)
    if len(signatures) > _MOST_SIGNATURES:
        raise ManifestError(f"the manifest's index has {len(signatures)} signatures, more than any index")
    known = [(keys[keyid], signature) for keyid, signature in signatures if keyid in keys]
    if not known:
        by = ", ".join(keyid[:16] for keyid, _ in signatures) or "nobody"
        raise ManifestError(f"the manifest's index is signed by {by}, and no such key is trusted here")
    openssl = _openssl()
    if not any(_signed(openssl, payload, signature, pem, deadline=deadline) for pem, signature in known):
        raise ManifestError("the signature of the manifest's index is wrong")
    return payload


def _key_files(path: str) -> list[str]:
    try:
        return [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(_KEY_NAMES)]
    except NotADirectoryError:
        return [path]
    except OSError as error:
        raise ResolverUsageError(f"cannot read the trusted key {path}: {error.strerror}") from None


def _read_key(path: str) -> tuple[str, bytes]:
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_KEY_BYTES)
    except OSError as error:
        raise ResolverUsageError(f"cannot read the trusted key {path}: {error.strerror}") from None
    _, begin, rest = content.partition(_BEGIN)
    body, end, _ = rest.partition(_END)
    try:
        der = binascii.a2b_base64(body) if begin and end else b""
    except binascii.Error:
        der = b""
    if not der:
        raise ResolverUsageError(f"{path} is no public key in PEM", hint="'publisher keys new' writes one as FILE.pub")
    return hashlib.sha256(der).hexdigest(), begin + body + end + b"\n"


def _openssl() -> str:
    """Its path. Raises ExpectedError where it has none."""
    from publisher.resolver.system import path_probe  # noqa: PLC0415 - what was checked is not checked again

    path = path_probe.program(("openssl",))
    if path is None:
        raise ExpectedError("cannot run openssl: it is not on the PATH", hint="the package openssl has it")
    return path


def _signed(openssl: str, payload: bytes, signature: bytes, pem: bytes, *, deadline: float) -> bool:
    """Whether ``openssl dgst`` finds the signature (DER) to be the key's over the payload.

    All three reach it as memory files under ``/dev/fd``: nothing is written anywhere, and the key is the one whose id was
    looked at.
    """
    opened = [_memory(content) for content in (payload, signature, pem)]
    try:
        data, sign, key = opened
        command = [openssl, "dgst", "-sha256", "-verify", f"/dev/fd/{key}", "-signature", f"/dev/fd/{sign}"]
        return _run(command, data, deadline) == 0
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _memory(content: bytes) -> int:
    """A file in memory with this content, at its beginning; children inherit it."""
    descriptor = os.memfd_create("verify", 0)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _run(command: list[str], stdin: int, deadline: float) -> int:
    """Run a program to its end; its exit status, negative for a signal.

    The end shows as the end of a pipe that the child alone holds: waitpid(2) has no deadline of its own.

    Raises:
        ExpectedError: it cannot be started, or did not end in time and was killed.
    """
    ended, held = os.pipe()
    try:
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, held, 1), (os.POSIX_SPAWN_DUP2, held, 2)]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        try:
            child = os.posix_spawn(command[0], command, environment, file_actions=actions)
        except OSError as error:
            raise ExpectedError(f"cannot run {command[0]}: {error.strerror}") from None
        finally:
            os.close(held)
        if not _at_end(ended, time.monotonic() + deadline):
            import signal  # noqa: PLC0415 - a millisecond, and openssl ends

            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise ExpectedError(f"{command[0]} did not end within {deadline:g} s and was killed")
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(ended)


def _at_end(pipe: int, until: float) -> bool:
    """Read a pipe to its end; False where that did not come in time."""
    while select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        if not os.read(pipe, 1 << 16):
            return True
    return False
