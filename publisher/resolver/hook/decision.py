"""The decision about a job's image, as a value: the updates of its ad, and what the trace and the user learn. Pure.

A job must never run outside its container. A vanilla job runs in ``SingularityImage``, and only ``WantSIF`` or
``WantSandboxImage`` make HTCondor start it in a container regardless of the site's SINGULARITY_JOB. A container-universe job runs
in ``ContainerImage``, and Docker runs it if ``WantDockerImage`` is true. So a decision for a path sets all five.
"""

from __future__ import annotations

from publisher.resolver.config.settings import SANDBOX, SIF, UNPACKED
from publisher.resolver.hook import statuses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.contract.errors import ExpectedError
    from publisher.contract.records import Sif
    from publisher.resolver.hook.job import Job
    from publisher.resolver.select.preparation import Resolution
    from publisher.resolver.system.classad import Value

_TRACE_FIELDS = ("name", "variant", "digest", "form", "path", "sif_source", "wanted", "bytes", "copied", "serial", "candidate")
"""The fields of the trace that describe the image that was found; null if there is none."""


class Decision:
    """What a job gets.

    Attributes:
        image: the image as the job names it.
        why: the reason of the decision.
        code: one of :mod:`publisher.resolver.hook.statuses`.
        message: one line for the user; empty for none.
        updates: attributes for the starter's copy of the job ad, which decide how the job starts.
        chirp_attributes: attributes for the job ad of the access point, which users see later.
    """

    __slots__ = ("_trace_fields", "chirp_attributes", "code", "image", "message", "updates", "why")

    def __init__(
        self,
        image: str,
        why: str,
        *,
        code: int = statuses.OK,
        message: str = "",
        updates: Mapping[str, Value] | None = None,
        chirp_attributes: Mapping[str, str] | None = None,
        trace_fields: Mapping[str, object] | None = None,
    ) -> None:
        self.image = image
        self.why = why
        self.code = code
        self.message = message
        self.updates = dict(updates or {})
        self.chirp_attributes = dict(chirp_attributes or {})
        self._trace_fields = dict(trace_fields or {})

    def replace(self, text: str, shown: str) -> None:
        """Replace a text in everything that people see; what HTCondor starts stays."""
        if text == shown:
            return
        self.image, self.why, self.message = (value.replace(text, shown) for value in (self.image, self.why, self.message))
        for values in (self.chirp_attributes, self._trace_fields):
            values.update({name: value.replace(text, shown) for name, value in values.items() if isinstance(value, str)})

    def to_json(self) -> dict[str, object]:
        """Return the fields for the trace."""
        found = {name: self._trace_fields.get(name) for name in _TRACE_FIELDS}
        return {"image": self.image, "code": self.code, "why": self.why, **found}


def start_published(image: str, resolution: Resolution, *, says_why: bool = False) -> Decision:
    """Return the decision to start a published image; with ``says_why`` the message has the reason for the form."""
    trace_fields: dict[str, object] = {
        "form": resolution.form,
        "path": resolution.path,
        "serial": resolution.manifest.index.serial,
        "sif_source": resolution.sif_source or None,
    }
    updates = _start_attributes(resolution.path, resolution.form)
    if resolution.image is None:
        message = f"image {resolution.path}"
        return Decision(image, resolution.why, message=message, updates=updates, trace_fields=trace_fields)
    name, version = resolution.image.name, resolution.image.version
    variant = resolution.image.variant
    trace_fields["name"], trace_fields["variant"], trace_fields["digest"] = name, variant, version.digest
    trace_fields["wanted"] = version.sif.size if resolution.sif_source and version.sif else 0
    trace_fields["bytes"], trace_fields["copied"] = resolution.received, resolution.copied
    return Decision(
        image,
        resolution.why,
        message=f"image {name} for {variant or resolution.image.arch} is {version.digest}, started as a {_noun(resolution.form)}"
        + (f", since {resolution.why}" if says_why else ""),
        updates=updates,
        chirp_attributes={
            "ImageName": name,
            "ImageDigest": version.digest,
            "ImageForm": resolution.form,
            **({"ImageVariant": variant} if variant is not None else {}),
        },
        trace_fields=trace_fields,
    )


def start_unlisted(image: str, why: str, path: str) -> Decision:
    """Return the decision to start a sandbox of the repository that no manifest lists."""
    updates = _start_attributes(path, SANDBOX)
    return Decision(image, why, message=f"image {path}", updates=updates, trace_fields={"form": SANDBOX, "path": path})


def start_foreign(
    image: str, why: str, sif: Sif, *, path: str, fetched_from: str, form: str = SIF, is_candidate: bool = False
) -> Decision:
    """Return the decision to start a SIF that was fetched by its URL, which is ``sif.path``, or what was unpacked from it.

    With ``is_candidate`` the trace says that the operator might put this image on the list.
    """
    return Decision(
        image,
        why,
        message=f"image {sif.path} with the sha256 {sif.sha256}",
        updates=_start_attributes(path, form),
        chirp_attributes={"ImageName": sif.path, "ImageSha256": sif.sha256, "ImageForm": form},
        trace_fields={
            "form": form,
            "path": path,
            "sif_source": fetched_from or None,
            "wanted": sif.size if fetched_from else 0,
            "bytes": sif.size if fetched_from else 0,
            "copied": 0,
            "candidate": sif.path if is_candidate else None,
        },
    )


def pass_on(job: Job, why: str) -> Decision:
    """Return the decision to leave the image to HTCondor and Apptainer.

    A vanilla job that has the image only in ``ContainerImage`` would start outside any container, so ``SingularityImage`` is set.
    It is also set if it has another value, since HTCondor would start that image, which was not checked.
    """
    updates: dict[str, Value] = {}
    if job.singularity not in (None, job.image):
        updates = {"SingularityImage": job.image}
    if not job.is_containerised:
        is_sif = job.image.endswith(".sif")
        updates = {"SingularityImage": job.image, "WantSIF": is_sif, "WantSandboxImage": not is_sif}
    return Decision(job.image, why, updates=updates)


def fail(image: str, error: ExpectedError) -> Decision:
    """Return the decision that the job cannot start here because of ``error``."""
    return Decision(image, str(error), code=statuses.for_error(error), message=statuses.message(error, image))


def _start_attributes(path: str, form: str) -> dict[str, Value]:
    """Return the attributes that start a job in the image at ``path``, in every universe."""
    return {
        "SingularityImage": path,
        "ContainerImage": path,
        "WantSIF": form == SIF,
        "WantSandboxImage": form != SIF,
        "WantDockerImage": False,
    }


def _noun(form: str) -> str:
    return {SIF: "SIF", UNPACKED: "sandbox that was unpacked from the SIF"}.get(form, form)
