"""What goes into a job and what comes back: the order, and the report of the build step, as JSON documents.

An order is written by this host. A report comes from a machine of the pool and is not trusted: it is parsed strictly, and what it
says of files is verified (:mod:`publisher.builders.returned`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from publisher import oci
from publisher.errors import (
    BlobError,
    BuildError,
    DeniedError,
    LayerError,
    NotFoundError,
    PublisherError,
    TestRunError,
    UnavailableError,
    UnsupportedError,
)
from publisher.layers.limits import DEFAULT_LIMITS, LayerLimits
from publisher.targets.origins.job_uploads import UploadGrant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.state.built import BuiltImage

T = TypeVar("T")

ORDER, REPORT, SIF, FILE_INDEX = "order.json", "report.json", "image.sif", "files.zst"
"""The files of a job: what it gets, and what it returns."""
BUILT, FAILED, UNSUITABLE = "built", "failed", "unsuitable"
"""The outcomes of a report: a SIF; a failure; a machine whose programs give other bytes, or that lacks one."""
_FORMAT = 1
_MAX_REPORT = 1 << 20  # bytes
_MAX_TEXT = 2000  # characters
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MADE_HERE = {"chunks"}
"""What a report does not say of a build beside its paths: the chunk table, which this host makes while it verifies."""
_ERRORS: dict[str, type[PublisherError]] = {
    kind.__name__: kind
    for kind in (
        *(BlobError, BuildError, DeniedError, LayerError),
        *(NotFoundError, TestRunError, UnavailableError, UnsupportedError),
    )
}
"""The failures that a report can name; any other is a failure of its machine."""


class JobError(PublisherError):
    """A job that has not returned what it should: its machine is to blame, not the image."""


@dataclass(frozen=True)
class StepOptions:
    """What a build step needs of the settings: times are seconds, sizes are bytes.

    Attributes:
        compression: ``zstd`` or ``gzip``.
        level: level of the compression, None for the usual one.
        limits: the limits of one image.
        build_deadline: for planning and squashing.
        test_deadline: for the test run.
        test_memory: the largest memory of the test run.
        insecure: registries that use plain http.
        networks: networks without public addresses to which requests may be sent.
        mirrors: registry -> URLs of its mirrors.
        request_deadline: for a small request.
        slowest_fetch: bytes per second.
        longest_pause: the longest wait that a registry may demand.
    """

    compression: str = "zstd"
    level: int | None = None
    limits: LayerLimits = DEFAULT_LIMITS
    build_deadline: float = 4 * 3600
    test_deadline: float = 120.0
    test_memory: int = 512 << 20
    insecure: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    request_deadline: float = 60.0
    slowest_fetch: int = 100_000
    longest_pause: float = 60.0


@dataclass(frozen=True)
class BuildOrder:
    """An order to build one image.

    Attributes:
        name: the CVMFS name that the image is built for; used in messages only.
        reference: registry and repository of the image.
        image: the image.
        trial: sha256 of the SIF that the machine has to make of the trial image (:mod:`publisher.builders.trial`).
        options: the options of the build step.
        upload: what the job uploads its SIF with, None if it returns it by file transfer.
    """

    name: str
    reference: str
    image: oci.Image
    trial: str
    options: StepOptions
    upload: UploadGrant | None = None

    def to_bytes(self) -> bytes:
        """Return the order as a JSON document."""
        manifest = self.image.manifest
        document = {
            "format": _FORMAT,
            "name": self.name,
            "reference": self.reference,
            "manifest": {
                "digest": manifest.digest,
                "media_type": manifest.media_type,
                "config": _blob(manifest.config),
                "layers": [_blob(layer) for layer in manifest.layers],
            },
            "config": base64.b64encode(self.image.config.raw).decode(),
            "trial": self.trial,
            "options": asdict(self.options),
            "upload": None if self.upload is None else asdict(self.upload),
        }
        return json.dumps(document).encode()

    @staticmethod
    def parse(content: bytes) -> BuildOrder:
        """Return the order in a document that :meth:`to_bytes` has made."""
        document = json.loads(content)
        manifest = document["manifest"]
        layers = tuple(oci.parse_descriptor(layer, "a layer") for layer in manifest["layers"])
        config = oci.parse_descriptor(manifest["config"], "the config")
        raw = base64.b64decode(document["config"])
        oci_manifest = oci.ImageManifest(manifest["digest"], manifest["media_type"], config, layers)
        options = document["options"]
        options |= {name: tuple(options[name]) for name in ("insecure", "networks")}
        options |= {
            "limits": LayerLimits(**options["limits"]),
            "mirrors": {name: tuple(urls) for name, urls in options["mirrors"].items()},
        }
        image = oci.join(oci_manifest, oci.parse_config(raw))
        upload = None if document["upload"] is None else UploadGrant(**document["upload"])
        return BuildOrder(document["name"], document["reference"], image, document["trial"], StepOptions(**options), upload)


@dataclass(frozen=True)
class JobReport:
    """What a build step says of its work.

    Attributes:
        outcome: :data:`BUILT`, :data:`FAILED` or :data:`UNSUITABLE`.
        build: the facts of the finished SIF, as in :class:`publisher.state.built.BuiltImage`, without paths; else empty.
        file_index_sha256: sha256 of the file index, 64 hex digits; empty unless built.
        kind: name of the error's class; empty if built.
        reason: why it failed, or why the machine is unsuitable.
        hint: the next step, None if there is none.
        uploaded: whether the SIF is in the job's directory of the incoming area, and not among the files that it returns.
        upload_problem: why it is not, although it was to be; empty if it is, or was not to be.
    """

    outcome: str
    build: dict[str, Any] = field(default_factory=dict)
    file_index_sha256: str = ""
    kind: str = ""
    reason: str = ""
    hint: str | None = None
    uploaded: bool = False
    upload_problem: str = ""

    def to_bytes(self) -> bytes:
        """Return the report as a JSON document."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def of_build(build: BuiltImage) -> JobReport:
        """Return the report of a finished build."""
        values = {name: value for name, value in build.facts().items() if name not in _MADE_HERE}
        return JobReport(BUILT, values, hashlib.sha256(build.file_index.read_bytes()).hexdigest())

    @staticmethod
    def of_error(error: PublisherError) -> JobReport:
        """Return the report of a failure."""
        return JobReport(FAILED, kind=type(error).__name__, reason=error.reason, hint=error.hint)

    @staticmethod
    def parse(content: bytes) -> JobReport:
        """Return the report in a document that a machine of the pool has sent.

        Raises:
            JobError: it is not a valid report.
        """
        try:
            document = json.loads(content if len(content) <= _MAX_REPORT else b"")
            report = JobReport(**{name: document[name] for name in _REPORT_FIELDS if name in document})
            _check_report(report)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise JobError("the job's report is not valid") from None
        return report

    def error(self) -> PublisherError | None:
        """Return the failure that the image is to blame for, or the registry; None if it may be the machine's."""
        kind = _ERRORS.get(self.kind)
        return None if kind is None else kind(self.reason, hint=self.hint)


_REPORT_FIELDS = frozenset(one.name for one in fields(JobReport))


def _check_report(report: JobReport) -> None:
    """Raise an exception that JSON of another kind than it should be causes, unless a report is valid."""
    texts: tuple[object, ...] = (
        report.outcome,
        report.kind,
        report.reason,
        report.hint or "",
        report.upload_problem,
        report.file_index_sha256,
    )
    if not all(isinstance(text, str) and len(text) <= _MAX_TEXT for text in texts) or type(report.uploaded) is not bool:
        raise TypeError
    if report.outcome == BUILT:
        _check_build(report.build, report.file_index_sha256)
    elif report.outcome not in {FAILED, UNSUITABLE}:
        raise ValueError


def _check_build(build: dict[str, Any], file_index_sha256: object) -> None:
    """Raise ValueError, TypeError or KeyError unless the facts of a build have the kinds that a record has."""
    texts = [*build["tools"].values(), *(value for value in build["notes"].values() if type(value) is not int)]
    valid = (
        build.keys() == {"sha256", "size", "unpacked_size", "files", "test", "tools", "notes", "config"},
        all(type(build[name]) is int and build[name] >= 0 for name in ("size", "unpacked_size", "files")),
        all(map(_is_sha256, (build["sha256"], file_index_sha256))),
        build["test"] in {"ran", "structure"} and isinstance(build["config"], str),
        all(isinstance(text, str) and len(text) <= _MAX_TEXT for text in texts),
    )
    if not all(valid):
        raise ValueError


def _is_sha256(text: object) -> bool:
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def _blob(descriptor: oci.Descriptor) -> dict[str, object]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
