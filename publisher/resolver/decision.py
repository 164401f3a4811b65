"""What a job gets: its image in the form that serves it here, its own name of it untouched, or a failure.

A name that the manifest knows becomes the path of a sandbox or of a SIF in the cache. What it does not know, and HTCondor may
start all the same (another registry's image, a path or URL elsewhere, a file that came with the job), is passed on.

Never outside its container: a vanilla job runs in ``SingularityImage``, and only ``WantSIF`` or ``WantSandboxImage`` make
HTCondor start it in one whatever the site's SINGULARITY_JOB says; a container-universe job runs in ``ContainerImage``, and by
Docker while ``WantDockerImage`` holds. So an answer with a path sets all five.
"""

from __future__ import annotations

import os

from publisher.resolver import codes, job, resolve
from publisher.resolver.config import FORMS, SANDBOX, SIF
from publisher.resolver.errors import BlockedError, FormError, ManifestError, ResolverError, UnknownImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.resolver.ad import Value
    from publisher.resolver.config import Settings
    from publisher.resolver.job import Job
    from publisher.resolver.notes import Notes
    from publisher.resolver.resolve import Answer

_DOCKER, _SCHEME = "docker://", "://"


class Decision:
    """What is answered.

    Attributes:
        code: one of :mod:`publisher.resolver.codes`.
        message: one line for the user; empty for none.
        updates: attributes for the job's ad.
        image: the image that was meant, as it was named.
        answer: the image that was found, None where none was.
        why: why it became this one.
    """

    __slots__ = ("answer", "code", "image", "message", "updates", "why")

    def __init__(
        self,
        image: str,
        why: str,
        *,
        code: int = codes.OK,
        message: str = "",
        updates: Mapping[str, Value] | None = None,
        answer: Answer | None = None,
    ) -> None:
        self.image = image
        self.why = why
        self.code = code
        self.message = message
        self.updates = dict(updates or {})
        self.answer = answer

    def to_cite(self) -> dict[str, str]:
        """Attributes for the job's ad, by which a user can say later what ran; empty where the image is none of ours."""
        found = self.answer and self.answer.found
        if not self.answer or not found:
            return {}
        return {"ImageName": found.name, "ImageDigest": found.version.manifest, "ImageForm": self.answer.form}

    def to_json(self) -> dict[str, object]:
        """For the trace: what was decided, and from where it came."""
        answer = self.answer
        found = answer and answer.found
        sif = found and found.version.sif
        return {
            "image": self.image,
            "code": self.code,
            "why": self.why,
            "name": found and found.name,
            "digest": found and found.version.manifest,
            "form": answer and answer.form,
            "path": answer and answer.path,
            "source": (answer and answer.fetched) or None,
            "bytes": sif.size if answer and answer.fetched and sif else 0,
            "serial": answer and answer.manifest.index.serial,
        }


def decide(wanted: Job, settings: Settings, *, scratch: str, now: float, until: float, notes: Notes) -> Decision:
    """What a job gets.

    Args:
        wanted: the job.
        settings: where things are, and the site's policy.
        scratch: the job's directory, where files that came with it are.
        now: this host's clock, seconds since the epoch.
        until: reading of the monotonic clock at which the hook gives up.
        notes: gets what is worth saying beside the answer.
    """
    if wanted.image:
        return _decided(wanted, settings, scratch=scratch, now=now, until=until, notes=notes)
    if not settings.default_image:
        return Decision("", "the job names no image")
    wanted.image = wanted.written = settings.default_image
    found = _decided(wanted, settings, scratch=None, now=now, until=until, notes=notes)
    if codes.OK < found.code < codes.FIRST_OF_HOST:
        found.code, found.message = codes.CONFIGURATION, f"the site's default image: {found.message}"
    return found


def _decided(wanted: Job, settings: Settings, *, scratch: str | None, now: float, until: float, notes: Notes) -> Decision:
    """What a job with an image gets; see :func:`decide`."""
    text = wanted.image
    try:
        if scratch and _SCHEME not in text and not text.startswith("/") and os.path.exists(os.path.join(scratch, text)):
            _refuse_blocked(wanted.written, settings, now, notes)
            return _untouched(wanted, "it came with the job")
        name = job.named(wanted.written)
        if _is_elsewhere(name, settings):
            return _untouched(wanted, "the manifest is not about it")
        if wanted.form and wanted.form not in FORMS:
            raise FormError(f"WantImageForm is {wanted.form!r}, and can be {', '.join(FORMS)}")
        asked = wanted.form or None
        return _found(text, resolve.resolve(name, settings, now, notes, asked=asked, until=until, starter=wanted.starter))
    except ResolverError as error:
        return _without(wanted, error, settings)


def _found(text: str, answer: Answer) -> Decision:
    updates = _started(answer.path, answer.form)
    return Decision(text, answer.why, message=_message(answer), updates=updates, answer=answer)


def _started(path: str, form: str) -> dict[str, Value]:
    """The attributes that make a job start in the image at ``path``, in every universe."""
    return {
        "SingularityImage": path,
        "ContainerImage": path,
        "WantSIF": form == SIF,
        "WantSandboxImage": form == SANDBOX,
        "WantDockerImage": False,
    }


def _message(answer: Answer) -> str:
    """What the user finds in the job's log: enough to cite the image."""
    if answer.found is None:
        return f"image {answer.path}"
    return f"image {answer.found.name} for {answer.found.arch} is {answer.found.version.manifest}, started as a {answer.form}"


def _untouched(wanted: Job, why: str) -> Decision:
    """The name stays. A vanilla job that has it in ``ContainerImage`` alone would start in no container at all."""
    updates: dict[str, Value] = {}
    if not wanted.is_containerised:
        is_sif = wanted.image.endswith(".sif")
        updates = {"SingularityImage": wanted.image, "WantSIF": is_sif, "WantSandboxImage": not is_sif}
    return Decision(wanted.image, why, updates=updates)


def _without(wanted: Job, error: ResolverError, settings: Settings) -> Decision:
    """An image that the manifest does not give: passed on where HTCondor may know it, else the failure."""
    is_unknown = type(error) is UnknownImageError
    if (is_unknown and _SCHEME in wanted.written) or (isinstance(error, ManifestError) and wanted.image.startswith(_DOCKER)):
        return _untouched(wanted, str(error))
    path = resolve.unlisted(wanted.image, settings) if is_unknown else None
    if path is not None:
        return Decision(wanted.image, f"{error}, but it is there", message=f"image {path}", updates=_started(path, SANDBOX))
    return Decision(wanted.image, str(error), code=codes.of(error), message=str(error))


def _is_elsewhere(name: str, settings: Settings) -> bool:
    """Whether a name cannot be one of the manifest's: a URL that is no SIF of ours, a path outside the repository."""
    if name.startswith("/"):
        return not any(f"{name}/".startswith(f"{root}/") for root in settings.roots)
    return _SCHEME in name and not name.startswith(_DOCKER)


def _refuse_blocked(text: str, settings: Settings, now: float, notes: Notes) -> None:
    """A file that came with the job is its own affair, unless it is a SIF of ours that was taken down since."""
    name = job.named(text)
    if name == text:
        return
    try:
        resolve.find(name, settings, now, notes, directory=resolve.usable_cache(settings, notes))
    except BlockedError:
        raise
    except ResolverError as error:
        notes.add(str(error))
