"""What a job is answered, as a value: the attributes it starts with, what the trace says of it, what its ad keeps. Pure.

Never outside its container: a vanilla job runs in ``SingularityImage``, and only ``WantSIF`` or ``WantSandboxImage`` make
HTCondor start it in one whatever the site's SINGULARITY_JOB says; a container-universe job runs in ``ContainerImage``, and by
Docker while ``WantDockerImage`` holds. So an answer with a path sets all five.
"""

from __future__ import annotations

from publisher.resolver.config.settings import SANDBOX, SIF
from publisher.resolver.hook import statuses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.contract.errors import ExpectedError
    from publisher.contract.manifest import Sif
    from publisher.resolver.hook.classad import Value
    from publisher.resolver.hook.job import Job
    from publisher.resolver.select.resolve import Resolution

_TRACED = ("name", "digest", "form", "path", "sif_source", "bytes", "serial")
"""What the trace has of an image beside how it was named; null where there is none."""


class Decision:
    """What is answered.

    Attributes:
        image: the image that was meant, as it was named.
        why: why it became this one.
        code: one of :mod:`publisher.resolver.hook.statuses`.
        message: one line for the user; empty for none.
        updates: attributes for the job's ad while it runs.
        cited: attributes for the job's ad that a user finds later.
    """

    __slots__ = ("_traced", "cited", "code", "image", "message", "updates", "why")

    def __init__(
        self,
        image: str,
        why: str,
        *,
        code: int = statuses.OK,
        message: str = "",
        updates: Mapping[str, Value] | None = None,
        cited: Mapping[str, str] | None = None,
        traced: Mapping[str, object] | None = None,
    ) -> None:
        self.image = image
        self.why = why
        self.code = code
        self.message = message
        self.updates = dict(updates or {})
        self.cited = dict(cited or {})
        self._traced = dict(traced or {})

    def to_json(self) -> dict[str, object]:
        """For the trace."""
        return {"image": self.image, "code": self.code, "why": self.why, **{name: self._traced.get(name) for name in _TRACED}}


def found(image: str, answer: Resolution) -> Decision:
    """An image of the manifest."""
    traced: dict[str, object] = {"form": answer.form, "path": answer.path, "serial": answer.manifest.index.serial}
    traced["sif_source"] = answer.sif_source or None
    if answer.found is None:
        return Decision(
            image, answer.why, message=f"image {answer.path}", updates=_started(answer.path, answer.form), traced=traced
        )
    name, version = answer.found.name, answer.found.version
    traced["name"], traced["digest"] = name, version.digest
    traced["bytes"] = version.sif.size if answer.sif_source and version.sif else 0
    return Decision(
        image,
        answer.why,
        message=f"image {name} for {answer.found.arch} is {version.digest}, started as a {answer.form}",
        updates=_started(answer.path, answer.form),
        cited={"ImageName": name, "ImageDigest": version.digest, "ImageForm": answer.form},
        traced=traced,
    )


def unlisted(image: str, why: str, path: str) -> Decision:
    """A sandbox of the repository that no manifest lists."""
    updates = _started(path, SANDBOX)
    return Decision(image, why, message=f"image {path}", updates=updates, traced={"form": SANDBOX, "path": path})


def foreign(image: str, why: str, sif: Sif, *, path: str, came_from: str) -> Decision:
    """A SIF of others, fetched by its URL; ``sif.path`` is that."""
    traced = {"form": SIF, "path": path, "sif_source": came_from or None, "bytes": sif.size if came_from else 0}
    message = f"image {sif.path} with the sha256 {sif.sha256}"
    cited = {"ImageName": sif.path, "ImageSha256": sif.sha256, "ImageForm": SIF}
    return Decision(image, why, message=message, updates=_started(path, SIF), cited=cited, traced=traced)


def untouched(job: Job, why: str) -> Decision:
    """The name stays. A vanilla job that has it in ``ContainerImage`` alone would start in no container at all.

    Where ``SingularityImage`` says something else, HTCondor would start that, which nobody has looked at.
    """
    updates: dict[str, Value] = {}
    if job.singularity not in (None, job.image):
        updates = {"SingularityImage": job.image}
    if not job.is_containerised:
        is_sif = job.image.endswith(".sif")
        updates = {"SingularityImage": job.image, "WantSIF": is_sif, "WantSandboxImage": not is_sif}
    return Decision(job.image, why, updates=updates)


def failed(image: str, error: ExpectedError) -> Decision:
    """No image."""
    return Decision(image, str(error), code=statuses.of(error), message=str(error))


def _started(path: str, form: str) -> dict[str, Value]:
    """The attributes that make a job start in the image at ``path``, in every universe."""
    return {
        "SingularityImage": path,
        "ContainerImage": path,
        "WantSIF": form == SIF,
        "WantSandboxImage": form == SANDBOX,
        "WantDockerImage": False,
    }
