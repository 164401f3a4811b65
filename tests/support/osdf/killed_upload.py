"""A program that uploads to a real origin and is killed before one of its requests.

Run it as ``python -m tests.support.osdf.killed_upload``.

It is a program rather than a forked child, because a child forked while other threads use TLS may find their locks held forever.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.net.retry import RetryPolicy
from publisher.state.signing import read_private_key
from publisher.targets.origins.pelican import PelicanOrigin, UploadOptions
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.pelican.jwt import MintedTokens, TokenClaims
from tests.support.loopback import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.targets.pelican.tokens import TokenScope, TokenSource


class Deadly:
    """A source of tokens that kills this process before its request number ``at``; never if that is 0."""

    def __init__(self, tokens: TokenSource, at: int) -> None:
        self._tokens = tokens
        self._left = itertools.count(at - 1, -1)

    def bearer(self, scopes: Sequence[TokenScope], base: str) -> str | None:
        if next(self._left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._tokens.bearer(scopes, base)


def main() -> None:
    """Upload a SIF, a shard and an index, as JSON on standard input says."""
    said = json.load(sys.stdin)
    tokens = MintedTokens(read_private_key(Path(said["key"])), said["keyid"], TokenClaims(said["issuer"]), time.time)
    options = UploadOptions(
        networks=LOOPBACK, tokens=tokens, ca_file=Path(said["authority"]), retries=RetryPolicy(attempts=3, first_delay=0.01)
    )
    address = OriginAddress(said["director"], said["prefix"], direct=False)
    origin = PelicanOrigin(address, replace(options, tokens=Deadly(tokens, said["at"])))
    source = Path(said["source"])
    content = source.read_bytes()
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    origin.put(said["sif"], source, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    origin.put_bytes(said["shard"], b"{}")
    origin.replace(said["index"], b"2")


if __name__ == "__main__":
    main()
