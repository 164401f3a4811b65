"""What a job says of its image. Pure.

The container universe fills in more than the user wrote: an image that HTCondor transfers stands in ``ContainerImage`` as a mere
file name, and as the user wrote it in ``ContainerImageFullPath``.
"""

from __future__ import annotations

from publisher.resolver.hook import classad as ads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.resolver.cache.pins import Starter
    from publisher.resolver.hook.classad import Read

_CONTAINER, _SINGULARITY = "ContainerImage", "SingularityImage"
_CONTAINERISED = ("WantContainer", "WantSIF", "WantSandboxImage")
_VIRTUAL_MACHINE = 13  # condor_universe.h
_SIF_ENDING = ".sif"
_HEXADECIMAL = frozenset("0123456789abcdef")
_SHA256_DIGITS = 64


class Job:
    """A job, as far as it matters.

    Attributes:
        image: what it names as its image, empty where it names none.
        written: the same as the user wrote it, where HTCondor has put a file name in its place; else ``image``.
        is_containerised: whether HTCondor starts it in a container as it is, if the site is set up for that.
        takes_default: whether the site's default image is for it: not where Docker or a virtual machine starts it.
        id: ``cluster.proc``, empty where it is not known.
        owner: whose it is.
        starter: the process that it lives and dies with, None where that is not known.
        form: the form that it asks for with ``WantImageForm``, in small letters; empty where it does not.
        singularity: ``SingularityImage`` as it stands there, which HTCondor takes before the other; None where it is not there.
        unreadable: attributes for its image that have something else than a text: only HTCondor could say what that means.
    """

    __slots__ = (
        *("form", "id", "image", "is_containerised", "owner", "singularity", "starter", "takes_default"),
        *("unreadable", "written"),
    )

    def __init__(self, ad: Mapping[str, Read], starter: Starter | None = None) -> None:
        self.starter = starter
        container, singularity = ads.text(ad, _CONTAINER).strip(), ads.text(ad, _SINGULARITY)
        self.image = container or singularity.strip()
        self.singularity = singularity if _SINGULARITY.lower() in ad else None
        self.unreadable = [name for name in (_CONTAINER, _SINGULARITY) if not isinstance(ad.get(name.lower(), ""), str)]
        self.is_containerised = bool(singularity) or any(ad.get(name.lower()) is True for name in _CONTAINERISED)
        self.takes_default = ad.get("wantdocker") is not True and ads.number(ad, "JobUniverse") != _VIRTUAL_MACHINE
        whole = ads.text(ad, "ContainerImageFullPath").strip() if container else ""
        self.written = whole or self.image
        cluster, proc = ads.number(ad, "ClusterId"), ads.number(ad, "ProcId")
        self.id = "" if cluster is None or proc is None else f"{cluster}.{proc}"
        self.owner = ads.text(ad, "Owner")
        self.form = ads.text(ad, "WantImageForm").strip().lower()


def named(text: str) -> str:
    """An image's name without what it is carried by: the path or URL of a SIF of ours (``…/<sha256>.sif``) is its digest."""
    base = text.partition("?")[0].rpartition("/")[2]
    digest = base.removesuffix(_SIF_ENDING)
    if base.endswith(_SIF_ENDING) and len(digest) == _SHA256_DIGITS and not set(digest) - _HEXADECIMAL:
        return f"sha256:{digest}"
    return text
