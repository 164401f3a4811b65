"""Malicious images: each tries to leave its root, to fill memory or disk, or to be mistaken for something else.

All of them know where ``canary`` is, a directory of this host that nobody may touch.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from tests.support.images import raw_tar
from tests.support.images.layers import directory, file, hardlink, symlink, tar
from tests.support.images.runnable import runnable
from tests.support.registries.registry import OCI, compress, describe, push_blob, push_manifest, sha256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LIMITS = {"max-unpacked-size": "16 MiB", "max-entries": "300", "max-path-length": "1000"}
"""Limits of the publisher, as flags, that these images exceed."""


@dataclass(frozen=True)
class Hostile:
    """An image, and the result that the publisher must have for it.

    Attributes:
        layers: blobs from the bottom up, gzip or plain.
        refused: pattern of the reason it is refused with, None where it is published.
        inside: paths that its sandbox then has, with their content.
        config: fields of the config that are other than usual; ``...`` takes one out.
        raw_config: the config's bytes instead.
        diff_ids: what the config says, where that is a lie.
    """

    layers: Sequence[bytes]
    refused: str | None = None
    inside: Mapping[str, bytes] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    raw_config: bytes | None = None
    diff_ids: Sequence[str] | None = None

    def push(self, address: str, name: str) -> None:
        """Push the image to a registry as ``name:1``."""
        diff_ids = [_diff_id(layer) for layer in self.layers] if self.diff_ids is None else self.diff_ids
        document = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}, **self.config}
        config = json.dumps(document).encode() if self.raw_config is None else self.raw_config
        for blob in (config, *self.layers):
            push_blob(address, name, blob)
        layers = [describe(layer, OCI["gzip"]) for layer in self.layers]
        manifest = {"schemaVersion": 2, "mediaType": OCI["manifest"], "config": describe(config, OCI["config"]), "layers": layers}
        push_manifest(address, name, "1", manifest)


@cache
def _diff_id(layer: bytes) -> str:
    return sha256(gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer)


def images(canary: Path) -> dict[str, Hostile]:
    """Return name -> image; the names are valid names of repositories."""
    base = compress(tar(runnable()), "gzip")
    out, up = str(canary), "../" * 30 + str(canary).lstrip("/")
    nested = (
        b'{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]},"config":{"Labels":' + b'{"a":' * 900 + b"1" + b"}" * 902
    )
    return {
        # --- attempts to leave the root
        "absolute-name": Hostile([base, tar([file(f"{out}/kept", b"in")])], inside={f"{out}/kept".lstrip("/"): b"in"}),
        "dotdot-name": Hostile([base, tar([file(f"{up}/kept")])], "a name that leads out of the root"),
        "dotdot-inside-a-name": Hostile([base, tar([file("a/../../b")])], "a name that leads out of the root"),
        "written-through-an-absolute-link": Hostile(
            [base, tar([symlink("l", out), symlink("m", up)]), tar([file("l/kept", b"in"), file("m/new", b"in")])],
            inside={f"{out}/kept".lstrip("/"): b"in", f"{out}/new".lstrip("/"): b"in"},
        ),
        "written-through-a-link-in-one-layer": Hostile(
            [base, tar([symlink("l", up), file("l/kept", b"in"), directory("l/d"), symlink("l/s", out)])],
            inside={f"{out}/kept".lstrip("/"): b"in"},
        ),
        "written-to-a-link-itself": Hostile(
            [base, tar([symlink("l", f"{out}/kept")]), tar([file("l", b"in")])], inside={"l": b"in"}
        ),
        "chain-of-links": Hostile(
            [base, tar([symlink("a", "b/c"), symlink("b", "/"), symlink("c", up), file("a/kept", b"in")])],
            inside={f"{out}/kept".lstrip("/"): b"in"},
        ),
        "circle-of-links": Hostile([base, tar([symlink("a", "b"), symlink("b", "a"), file("a/x")])], "too many symbolic links"),
        "hard-link-with-dotdot": Hostile([base, tar([hardlink("h", f"{up}/kept")])], "a name that leads out of the root"),
        "hard-link-to-an-absolute-path": Hostile([base, tar([hardlink("h", f"{out}/kept")])], "which does not exist"),
        "hard-link-through-a-link": Hostile([base, tar([symlink("l", out), hardlink("h", "l/kept")])], "which does not exist"),
        "hard-link-to-a-link-and-written": Hostile(
            [base, tar([symlink("l", f"{out}/kept"), hardlink("h", "l")]), tar([file("h", b"in")])], inside={"h": b"in"}
        ),
        "whiteout-of-dotdot": Hostile([base, tar([file("etc/.wh...", b"")])], "whiteout without a file name"),
        "whiteout-of-dot": Hostile([base, tar([file(".wh..", b"")])], "whiteout without a file name"),
        "whiteout-through-a-link": Hostile(
            [base, tar([symlink("l", out), symlink("m", up)]), tar([file("l/.wh.kept"), file("m/.wh..wh..opq")])]
        ),
        "nameless-whiteout": Hostile([base, tar([file("etc/.wh.", b"")])], "whiteout without a file name"),
        "root-as-a-link": Hostile(
            [base, raw_tar.header(b"./", b"2", link=out.encode()) + raw_tar.END], "for the root that is not a directory"
        ),
        "device-nodes": Hostile([base, raw_tar.header(b"disk", b"4", tail=b"") + raw_tar.header(b"mem", b"3") + raw_tar.END]),
        # --- false headers
        "size-beyond-the-layer": Hostile([base, raw_tar.header(b"a", size=1 << 30) + raw_tar.END], "truncated within the data"),
        "size-too-small": Hostile([base, raw_tar.header(b"a", size=10) + bytes([7]) * 1024 + raw_tar.END], "wrong checksum"),
        "negative-size": Hostile(
            [base, raw_tar.header(b"a", size=raw_tar.number(-512)) + raw_tar.END], "an invalid size or owner"
        ),
        "size-of-exabytes": Hostile(
            [base, raw_tar.header(b"a", size=raw_tar.number(1 << 62)) + raw_tar.END], "truncated within the data"
        ),
        "two-sizes": Hostile(
            [
                base,
                raw_tar.pax((b"size", b"1024"))
                + raw_tar.header(b"a", size=0)
                + raw_tar.file(b"smuggled", b"")
                + bytes(512)
                + raw_tar.END,
            ],
            inside={"a": raw_tar.file(b"smuggled", b"") + bytes(512)},
        ),
        "sparse-of-exabytes": Hostile(
            [
                base,
                raw_tar.header(b"a", b"S", magic=raw_tar.GNU, tail=raw_tar.sparse_map((1 << 32, 0), real=1 << 32)) + raw_tar.END,
            ],
            "more than the limit",
        ),
        "extended-header-of-gigabytes": Hostile(
            [base, raw_tar.header(b"x", b"x", size=1 << 32) + raw_tar.END], "extended header of 4294967296"
        ),
        "no-archive": Hostile([base, b"this is no archive ".ljust(4096, b".")], "not a tar archive"),
        # --- bombs
        "unpacked-size": Hostile([base, compress(bytes(64 << 20), "gzip")], "unpacks to more than 16.8 MB"),
        "one-large-file": Hostile([base, compress(tar([file("a", bytes(20 << 20))]), "gzip")], "unpacks to more than 16.8 MB"),
        "layers-together": Hostile(
            [base, *(compress(tar([file(name, bytes(7 << 20))]), "gzip") for name in ("a", "b"))],
            r"unpacks to [\d.]+ MB, but only 16\.8 MB",
        ),
        "entries-of-a-layer": Hostile(
            [base, tar([file(f"f{number}", b"") for number in range(301)])], "layer has more than 300 entries"
        ),
        "entries-together": Hostile(
            [base, *(tar([file(f"{letter}{number}", b"") for number in range(180)]) for letter in "ab")],
            "image has more than 300 entries",
        ),
        "implied-directories": Hostile(
            [base, tar([file(f"{number}/" + "d/" * 90 + "x", b"") for number in range(8)])], "more than 300 entries"
        ),
        "path-length": Hostile(
            [base, tar([file("d" * 200 + "/" + ("e" * 200 + "/") * 4 + "x")])], "path of 1006 bytes, more than 1000"
        ),
        "path-length-by-links": Hostile(
            [base, tar([symlink("/".join(["l"] * depth), ("n" * 200 + "/") * 2) for depth in range(1, 6)])],
            r"a path of \d+ bytes, more than 1000",
        ),
        "name-length": Hostile([base, tar([file("n" * 256)])], "name of 256 bytes"),
        # --- manifests and configs
        "nested-config": Hostile([], "JSON that is nested too deeply", raw_config=nested),
        "deeply-nested-config": Hostile([], "JSON that is nested too deeply", raw_config=b"[" * 1_000_000),
        "windows": Hostile([base], "operating system 'windows', not for linux", config={"os": "windows"}),
        "other-architecture": Hostile([base], "for linux/arm64, not for linux/amd64", config={"architecture": "arm64"}),
        "no-architecture": Hostile([base], "has no architecture", config={"architecture": ""}),
        "lying-diff-ids": Hostile([base], "layer 1 unpacks to sha256:.*, its config says", diff_ids=["sha256:" + "0" * 64]),
        "too-few-diff-ids": Hostile([base, base], "2 layers, its config 1 diff_ids", diff_ids=["sha256:" + "0" * 64]),
        "env-that-is-no-list": Hostile([base], "does not accept the image's config", config={"config": {"Env": "PATH=/bin"}}),
        # --- images that imitate the metadata of Apptainer
        "own-singularity-d": Hostile(
            [
                base,
                tar(
                    [file(".singularity.d/actions/exec", b"#!/bin/sh\ntouch /planted\n", mode=0o755), file(".singularity.d/mine")]
                ),
            ]
        ),
        "singularity-d-as-a-link": Hostile([base, tar([symlink(".singularity.d", out), symlink(".run", f"{out}/kept")])]),
        "etc-as-a-link": Hostile([base, tar([symlink("etc", out)])], inside={f"{out}/hosts".lstrip("/"): b""}),
        "places-as-links": Hostile(
            [base, tar([symlink("var", "data/var"), symlink("home", "usr/home"), symlink("tmp", "/data"), directory("data")])]
        ),
        "places-as-links-that-lead-out": Hostile(
            [base, tar([symlink("var", up), symlink("home", f"{out}/kept"), symlink("tmp", out)])]
        ),
        "places-as-files": Hostile(
            [base, tar([file("home", b"1"), file("srv", b"2"), file("cvmfs", b"3")])], inside={"home": b"1", "srv": b"2"}
        ),
    }
