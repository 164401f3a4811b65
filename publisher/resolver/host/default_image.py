"""The image of jobs that name none: drawn once for each pilot from what the site configured and this host can run. Pure."""

from __future__ import annotations

from publisher.contract import units
from publisher.resolver.errors import ResolverUsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_GPU = "gpu"
_LEVEL = "x86-64-v"
_LEVEL_FLAGS = (
    {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"},
    {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"},
    {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
)
"""What levels 2, 3 and 4 of the x86-64 psABI add, as /proc/cpuinfo names it (``abm`` is LZCNT)."""
_NO_GPU = ("", "-1", "10000", "na", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that batch systems set for jobs without a GPU."""


class HostCapacity:
    """What a host offers to images.

    Attributes:
        arch: its architecture, as Go names it.
        level: its x86-64 level, 0 for other architectures.
        gpu: whether it has a GPU for jobs.
    """

    __slots__ = ("arch", "gpu", "level")

    def __init__(self, arch: str, level: int = 0, *, gpu: bool = False) -> None:
        self.arch = arch
        self.level = level
        self.gpu = gpu


class ImageOffer:
    """An image that the site offers as the default image, with a weight and conditions.

    Attributes:
        name: the image.
        weight: its share, relative to the other offers that fit the host.
        arch: the required architecture, None for any.
        level: the required x86-64 level, 0 for any.
        gpu: whether it requires a GPU.
    """

    __slots__ = ("arch", "gpu", "level", "name", "weight")

    def __init__(self, text: str) -> None:
        """Parse ``WEIGHT%NAME[,CONDITION…]``, for example ``25%htc/almalinux:10,x86-64-v3``.

        A condition is an architecture, an x86-64 level or ``gpu``.

        Raises:
            ResolverUsageError: the text has another format.
        """
        weight, percent, rest = text.partition("%")
        self.name, *conditions = rest.split(",")
        self.arch: str | None = None
        self.level = 0
        self.gpu = False
        try:
            self.weight = units.parse_count(weight)
        except ValueError:
            percent = ""
        if not percent or not self.name or not all(conditions):
            raise ResolverUsageError(
                f"--default-images {text!r} must be WEIGHT%NAME[,CONDITION…]", hint="for example 25%htc/almalinux:10,x86-64-v3"
            )
        for word in conditions:
            if word == _GPU:
                self.gpu = True
            elif word.startswith(_LEVEL) and word[len(_LEVEL) :] in ("2", "3", "4"):
                self.level = int(word[len(_LEVEL) :])
            else:
                self.arch = word

    def fits(self, host: HostCapacity) -> bool:
        """Return whether the host meets all conditions."""
        return self.arch in (None, host.arch) and self.level <= host.level and (host.gpu or not self.gpu)


def choose(offers: Iterable[ImageOffer], host: HostCapacity, draw: float) -> str:
    """Return the name of an image that fits the host, drawn by weight; empty if none fits.

    If the host has a GPU and some of the images require one, only those are drawn from.

    Args:
        offers: as configured.
        host: where the jobs will run.
        draw: a random number, 0 <= draw < 1.
    """
    fitting = [offer for offer in offers if offer.weight and offer.fits(host)]
    fitting = [offer for offer in fitting if offer.gpu] or fitting
    left = draw * sum(offer.weight for offer in fitting)
    for offer in fitting:
        left -= offer.weight
        if left < 0:
            return offer.name
    return ""


def x86_64_level(cpuinfo: str) -> int:
    """Return the x86-64 level of a processor, 1 to 4, from the text of /proc/cpuinfo; 0 for another architecture."""
    lines = [line.partition(":")[2] for line in cpuinfo.splitlines() if line.startswith("flags")]
    flags = set(lines[0].split()) if lines else set()
    if "lm" not in flags:
        return 0
    level = 1
    for added in _LEVEL_FLAGS:
        if not added <= flags:
            break
        level += 1
    return level


def has_gpu(environ: Mapping[str, str], devices: Sequence[str]) -> bool:
    """Return whether jobs have a GPU: as the batch system says, or if it says nothing, whether there are device files."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return visible.strip() not in _NO_GPU
    return bool(devices)
