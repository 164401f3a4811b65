"""Signatures of the manifest, verified with the program ``openssl``, which every host has.

Python's standard library cannot verify signatures. A trusted key is a public key in a PEM file. Its id is the sha256 of its
SubjectPublicKeyInfo in DER, so that keys need no names and no key can claim another's id. A key is trusted while its file is
present; removing the file revokes it. What a trusted key may sign besides the index: :mod:`publisher.resolver.trust.authority`.
"""

from __future__ import annotations

import binascii
import os
import select
import time

from publisher.contract import fields
from publisher.contract.errors import ExpectedError, ManifestError
from publisher.contract.quickhash import sha256
from publisher.resolver.errors import ResolverUsageError
from publisher.resolver.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from publisher.contract.manifest import Envelope

TIMEOUT = 10.0
"""Seconds for one run of openssl, which needs a hundredth of a second."""
_MAX_SIGNATURES = 16  # of one index: each may cost a process, and the list is not trusted yet
_MAX_KEY_BYTES = 16 << 10
_KEY_SUFFIXES = (".pem", ".pub")
_BEGIN, _END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"


def load_keys(paths: Iterable[str]) -> dict[str, bytes]:
    """Return the trusted keys: key id (64 hex digits) -> PEM.

    Args:
        paths: files with one public key each, and directories of such files (``*.pem``, ``*.pub``).

    Raises:
        ResolverUsageError: a file is not a public key, or there is no key at all.
    """
    keys = {}
    for path in paths:
        for file in _key_files(path):
            keyid, pem = _read_key(file)
            keys[keyid] = pem
    if not keys:
        raise ResolverUsageError("no trusted key is set", hint="set --public-key FILE, or a directory with *.pem or *.pub files")
    return keys


def verify(
    envelope: Envelope, keys: Mapping[str, bytes], threshold: int = 1, *, part: str = "index", timeout: float = TIMEOUT
) -> bytes:
    """Return the payload of an envelope if enough of the keys have signed it.

    Args:
        envelope: the envelope.
        keys: the keys that may sign it: key id (64 hex digits) -> PEM.
        threshold: number of different keys that must have signed it.
        part: the part of the manifest in the errors: ``index`` or ``keys document``.
        timeout: seconds for each run of openssl.

    Raises:
        ManifestError: the envelope is signed by other keys only, or too few signatures are valid.
        ExpectedError: openssl is missing or hangs.
    """
    signatures = envelope.signatures
    if len(signatures) > _MAX_SIGNATURES:
        raise ManifestError(f"the manifest's {part} has {len(signatures)} signatures, more than the allowed {_MAX_SIGNATURES}")
    candidates = [(keyid, signature) for keyid, signature in signatures if keyid in keys]
    if not candidates:
        signers = ", ".join(keyid[:16] for keyid, _ in signatures) or "nobody"
        raise ManifestError(f"the manifest's {part} is signed by {signers}, and no such key is trusted here")
    openssl = _find_openssl()
    valid: set[str] = set()
    for keyid, signature in candidates:
        if keyid not in valid and _is_signed(openssl, envelope.payload, signature, keys[keyid], timeout=timeout):
            valid.add(keyid)
            if len(valid) >= threshold:
                return envelope.payload
    if threshold == 1:
        raise ManifestError(f"the signature of the manifest's {part} is not valid")
    raise ManifestError(f"the manifest's {part} has {len(valid)} valid signatures of different keys; it needs {threshold}")


def _key_files(path: str) -> list[str]:
    """Return the key files in a directory, or the path itself if it is a file."""
    try:
        return [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(_KEY_SUFFIXES)]
    except NotADirectoryError:
        return [path]
    except OSError as error:
        raise ResolverUsageError(f"cannot read the trusted key {path}: {error.strerror}") from None


def _read_key(path: str) -> tuple[str, bytes]:
    """Return the id and the PEM of the key in a file."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise ResolverUsageError(f"cannot read the trusted key {path}: {error.strerror}") from None
    _, begin, rest = content.partition(_BEGIN)
    body, end, _ = rest.partition(_END)
    try:
        der = binascii.a2b_base64(body) if begin and end else b""
    except binascii.Error:
        der = b""
    if not der:
        raise ResolverUsageError(f"{path} is not a public key in PEM", hint="'publisher keys new' writes one as FILE.pub")
    try:
        fields.p256_key(der)
    except ValueError:
        hint = "a manifest is signed with P-256; no other kind of key is accepted"
        raise ResolverUsageError(f"{path} is not a public key on the curve P-256", hint=hint) from None
    return sha256(der).hexdigest(), begin + body + end + b"\n"


def _find_openssl() -> str:
    """Return the path of openssl. Raise ExpectedError if it is not installed."""
    from publisher.resolver.system import path_probe  # noqa: PLC0415 - a cached signature needs no openssl

    path = path_probe.find_program(("openssl",))
    if path is None:
        raise ExpectedError("cannot run openssl: it is not on the PATH", hint="install the package openssl")
    return path


def _is_signed(openssl: str, payload: bytes, signature: bytes, pem: bytes, *, timeout: float) -> bool:
    """Return whether ``openssl dgst`` accepts the signature (DER) of the payload by the key.

    All three are memory files under ``/dev/fd``: nothing is written to disk, and the key is the one whose id was checked.
    """
    descriptors = [_memory_file(content) for content in (payload, signature, pem)]
    try:
        payload_file, signature_file, key_file = descriptors
        command = [openssl, "dgst", "-sha256", "-verify", f"/dev/fd/{key_file}", "-signature", f"/dev/fd/{signature_file}"]
        return _run(command, payload_file, timeout) == 0
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _memory_file(content: bytes) -> int:
    """Return the descriptor of a memory file with this content, at its beginning; child processes inherit it."""
    descriptor = os.memfd_create("verify", 0)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _run(command: list[str], stdin: int, timeout: float) -> int:
    """Run a program and return its exit status, negative for a signal.

    The end of a pipe that only the child holds open shows the end of the child, since waitpid(2) has no deadline.

    Raises:
        ExpectedError: the program cannot be started, or did not end in time and was killed.
    """
    begun = time.monotonic()
    ended, held_by_child = os.pipe()
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, held_by_child, 1),
            (os.POSIX_SPAWN_DUP2, held_by_child, 2),
        ]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        try:
            child = os.posix_spawn(command[0], command, environment, file_actions=actions)
        except OSError as error:
            raise ExpectedError(f"cannot run {command[0]}: {error.strerror}") from None
        finally:
            os.close(held_by_child)
        if not _ends_before(ended, begun + timeout):
            import signal  # noqa: PLC0415 - a millisecond, and openssl ends

            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise ExpectedError(f"{command[0]} did not end within {timeout:g} s and was killed")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        log.debug("%s: status %d after %.2f s", " ".join(command), status, time.monotonic() - begun)
        return status
    finally:
        os.close(ended)


def _ends_before(pipe: int, until: float) -> bool:
    """Read a pipe to its end; return whether that came before ``until`` on the monotonic clock."""
    while select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        if not os.read(pipe, 1 << 16):
            return True
    return False
