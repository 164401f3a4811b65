"""The image of jobs that name none: drawn once for each pilot from what the site configured and this host can run. Pure."""

from __future__ import annotations

from publisher.contract import units
from publisher.resolver.errors import ResolverUsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_GPU = "gpu"
_LEVEL = "x86-64-v"
_LEVELS = (
    {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"},
    {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"},
    {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
)
"""What the x86-64 psABI's levels 2, 3 and 4 add, in the words of /proc/cpuinfo (``abm`` is LZCNT)."""
_NO_GPU = ("", "-1", "10000", "na", "NoDevFiles")
"""What batch systems were seen to set CUDA_VISIBLE_DEVICES to where a job has none."""


class HostCapacity:
    """What of a host decides: ``arch`` in Go's words, the x86-64 ``level`` (0 elsewhere), and whether it has a GPU for jobs."""

    __slots__ = ("arch", "gpu", "level")

    def __init__(self, arch: str, level: int = 0, *, gpu: bool = False) -> None:
        self.arch = arch
        self.level = level
        self.gpu = gpu


class ImageOffer:
    """An image with its ``weight`` and conditions; ``arch`` None is any, ``level`` 0 any, ``gpu`` only with one."""

    __slots__ = ("arch", "gpu", "level", "name", "weight")

    def __init__(self, text: str) -> None:
        """Read ``WEIGHT%NAME[,CONDITION…]``: ``25%htc/almalinux:10,x86-64-v3``. A condition is an architecture, a level, ``gpu``.

        Raises:
            ResolverUsageError: it is not of that form.
        """
        weight, percent, rest = text.partition("%")
        self.name, *conditions = rest.split(",")
        self.arch: str | None = None
        self.level = 0
        self.gpu = False
        try:
            self.weight = units.whole(weight)
        except ValueError:
            percent = ""
        if not percent or not self.name or not all(conditions):
            raise ResolverUsageError(
                f"--default-images {text!r}: not WEIGHT%NAME[,CONDITION…]", hint="25%htc/almalinux:10,x86-64-v3"
            )
        for word in conditions:
            if word == _GPU:
                self.gpu = True
            elif word.startswith(_LEVEL) and word[len(_LEVEL) :] in ("2", "3", "4"):
                self.level = int(word[len(_LEVEL) :])
            else:
                self.arch = word

    def fits(self, host: HostCapacity) -> bool:
        """Whether the host can run it and is meant by it."""
        return self.arch in (None, host.arch) and self.level <= host.level and (host.gpu or not self.gpu)


def choose(offers: Iterable[ImageOffer], host: HostCapacity, draw: float) -> str:
    """The name that was drawn among the offers which fit, by their weights; empty where none fits.

    On a host with a GPU those for GPUs come alone, where there are any.

    Args:
        offers: as configured.
        host: where jobs will run.
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


def level(cpuinfo: str) -> int:
    """The x86-64 level of a processor from the text of /proc/cpuinfo: 1 to 4, and 0 for another architecture."""
    lines = [line.partition(":")[2] for line in cpuinfo.splitlines() if line.startswith("flags")]
    flags = set(lines[0].split()) if lines else set()
    if "lm" not in flags:
        return 0
    reached = 1
    for added in _LEVELS:
        if not added <= flags:
            break
        reached += 1
    return reached


def has_gpu(environ: Mapping[str, str], devices: Sequence[str]) -> bool:
    """Whether jobs have a GPU here: what the batch system says counts, else which device files are there."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return visible.strip() not in _NO_GPU
    return bool(devices)
