"""Keys that this process never has: they are in a PKCS#11 token, or behind a program such as the client of a KMS.

Every signature from outside is verified with the public key before it is used.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from publisher.errors import CommandError, SigningError, UsageError
from publisher.signing import credentials
from publisher.state import signing
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from publisher.signing.credentials import Ask
    from publisher.signing.key_source import ProgramKey, TokenKey

_DEADLINE = 60.0  # seconds for one call
_PIN = "TOKEN_PIN"  # an environment variable, because other users can read the arguments of a program


class OutsideKey:
    """A key that is used by a function; as :class:`publisher.state.signing.Signer` otherwise.

    Args:
        name: the key in messages.
        public_key: the public key's file, PEM or DER.
        sign: returns the signature (DER) of a payload.

    Raises:
        UsageError: the public key is not one on the curve P-256.
    """

    def __init__(self, name: str, public_key: bytes, sign: Callable[[bytes], bytes]) -> None:
        self._name = name
        self._sign = sign
        self.public = signing.load_public_key(public_key, name)

    def sign(self, payload: bytes) -> dict[str, bytes]:
        """Return the signature (DER) of a payload as ``{key id: signature}``.

        Raises:
            SigningError: there is no signature, or it is not valid.
        """
        try:
            signature = self._sign(payload)
        except CommandError as error:
            raise SigningError(f"{self._name} did not sign: {error.reason}", hint="nothing was published; run again") from error
        if not self.public.verifies(payload, signature):
            raise SigningError(f"{self._name} gave a signature that its public key does not verify", hint="nothing was published")
        return {self.public.keyid: signature}


def open_token(key: TokenKey, ask: Ask) -> OutsideKey:
    """Return a key in a PKCS#11 token, used by the program pkcs11-tool (OpenSC).

    Raises:
        UsageError: the token, its PIN or the key in it cannot be used.
    """
    pin = credentials.find_secret(f"{key.label}.pin", ask, f"the PIN of the token {key.token}").decode("utf-8", "surrogateescape")
    home = {"HOME": os.environ["HOME"]} if "HOME" in os.environ else {}  # the libraries of tokens have their settings there

    def call(*arguments: str, stdin: bytes | None = None) -> bytes:
        argv = ["pkcs11-tool", "--module", str(key.module), "--token-label", key.token, "--label", key.label]
        argv += ["--login", "--pin", f"env:{_PIN}", "--output-file", "/dev/stdout", *arguments]
        return command.run(argv, deadline=_DEADLINE, env={**home, _PIN: pin}, stdin=stdin).stdout

    def sign(payload: bytes) -> bytes:
        digest = hashlib.sha256(payload).digest()  # many tokens know ECDSA, but not with a hash
        return call("--sign", "--mechanism", "ECDSA", "--signature-format", "openssl", "--input-file", "/dev/stdin", stdin=digest)

    return _open(str(key), lambda: call("--read-object", "--type", "pubkey"), sign)


def open_program(key: ProgramKey) -> OutsideKey:
    """Return a key behind a program.

    ``PROGRAM public-key`` prints the public key in PEM; ``PROGRAM sign`` reads a payload and prints its signature in DER.

    Raises:
        UsageError: the program cannot be used.
    """
    env: Mapping[str, str] = {name: os.environ[name] for name in (credentials.VARIABLE, "HOME") if name in os.environ}

    def call(word: str, stdin: bytes | None = None) -> bytes:
        return command.run([str(key.path), word], deadline=_DEADLINE, env=env, stdin=stdin).stdout

    return _open(str(key), lambda: call("public-key"), lambda payload: call("sign", payload))


def _open(name: str, read_public_key: Callable[[], bytes], sign: Callable[[bytes], bytes]) -> OutsideKey:
    try:
        public_key = read_public_key()
    except CommandError as error:
        raise UsageError(f"{name} cannot be used: {error.reason}", hint=error.hint) from error
    return OutsideKey(name, public_key, sign)
