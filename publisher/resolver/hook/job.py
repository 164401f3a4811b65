"""What a job ad says about the image. This module is pure.

The container universe adds attributes that the user did not write: for an image that HTCondor transfers, ``ContainerImage`` has
the bare file name, and ``ContainerImageFullPath`` has what the user wrote.
"""

from __future__ import annotations

from publisher.resolver.system import classad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.system.classad import ParsedValue

_CONTAINER, _SINGULARITY = "ContainerImage", "SingularityImage"
_CONTAINER_FLAGS = ("WantContainer", "WantSIF", "WantSandboxImage")
_VM_UNIVERSE = 13  # condor_universe.h
_SIF_SUFFIX, _STASH = ".sif", "stash://"
_CREDENTIALS = "_DOCKER_"  # APPTAINER_DOCKER_USERNAME, SINGULARITY_DOCKER_PASSWORD and the like
_HEXADECIMAL = frozenset("0123456789abcdef")
_SHA256_DIGITS = 64


class Job:
    """A job, as far as the hook needs it.

    Attributes:
        image: the image that it names; empty if it names none.
        written_image: the image as the user wrote it, if HTCondor has replaced that by a file name; else ``image``.
        is_containerised: whether HTCondor runs it in a container without a change, if the site is configured for that.
        takes_default: whether the site's default image is for it: not if Docker or a virtual machine runs it.
        id: ``cluster.proc``; empty if unknown.
        owner: the user.
        starter: the process that lives as long as the job; None if unknown.
        form: the form that it requests with ``WantImageForm``, in lower case; empty if it requests none.
        test_failures: how often Apptainer's test of the image has failed (HTCondor's status 45).
        last_host: the slot where it last ran, ``slot1_2@host``; empty if it never ran.
        last_vacated: when it last left a slot without having ended, seconds since the epoch; 0 for never.
        bypass_project: its project, in lower case, if it wants to run outside a container (``container_bypass``); else empty.
        environment: what the job's environment is, as HTCondor writes that into the ad (``A=1 B='x y'``).
        has_registry_credentials: whether that gives Apptainer the user's credentials for a registry.
        singularity: the value of ``SingularityImage``, which HTCondor prefers to ``ContainerImage``; None if it is absent.
        unreadable: the image attributes whose value is not a string, so that only HTCondor could evaluate them.
    """

    __slots__ = (
        *(
            "bypass_project",
            "environment",
            "form",
            "has_registry_credentials",
            "id",
            "image",
            "is_containerised",
            "last_host",
            "last_vacated",
            "owner",
            "singularity",
        ),
        *("starter", "takes_default", "test_failures", "unreadable", "written_image"),
    )

    def __init__(self, ad: Mapping[str, ParsedValue], starter: Starter | None = None) -> None:
        self.starter = starter
        container, singularity = classad.get_string(ad, _CONTAINER).strip(), classad.get_string(ad, _SINGULARITY)
        self.image = container or singularity.strip()
        self.singularity = singularity if _SINGULARITY.lower() in ad else None
        self.unreadable = [name for name in (_CONTAINER, _SINGULARITY) if not isinstance(ad.get(name.lower(), ""), str)]
        self.is_containerised = bool(singularity) or any(ad.get(name.lower()) is True for name in _CONTAINER_FLAGS)
        self.takes_default = ad.get("wantdocker") is not True and classad.get_integer(ad, "JobUniverse") != _VM_UNIVERSE
        full_path = classad.get_string(ad, "ContainerImageFullPath").strip() if container and "/" not in container else ""
        self.written_image = _canonical_url(full_path or self.image)
        cluster, proc = classad.get_integer(ad, "ClusterId"), classad.get_integer(ad, "ProcId")
        self.id = "" if cluster is None or proc is None else f"{cluster}.{proc}"
        self.owner = classad.get_string(ad, "Owner")
        self.bypass_project = classad.get_string(ad, "ProjectName").lower() if ad.get("container_bypass") is True else ""
        self.environment = classad.get_string(ad, "Environment")
        self.has_registry_credentials = _CREDENTIALS in self.environment or _CREDENTIALS in classad.get_string(ad, "Env")
        self.form = classad.get_string(ad, "WantImageForm").strip().lower()
        self.test_failures = classad.get_integer(ad, "NumVacatesByReason.SingularityTestFailed") or 0
        self.last_host = classad.get_string(ad, "LastRemoteHost")
        self.last_vacated = classad.get_integer(ad, "LastVacateTime") or 0


def _canonical_url(text: str) -> str:
    """Return a URL with OSDF's old name, ``stash://``, with its new one; any other text unchanged."""
    return f"osdf://{text[len(_STASH) :]}" if text.startswith(_STASH) else text


def name_to_look_up(text: str) -> str:
    """Return ``sha256:<digest>`` for the path or URL of a published SIF (``…/<sha256>.sif``), and any other name unchanged."""
    base = text.partition("?")[0].rpartition("/")[2]
    digest = base.removesuffix(_SIF_SUFFIX)
    if base.endswith(_SIF_SUFFIX) and len(digest) == _SHA256_DIGITS and not set(digest) - _HEXADECIMAL:
        return f"sha256:{digest}"
    return text
