"""Conditions that an image has for a host: ``x86-64-v3,cuda>=12.4``. Pure.

The publisher reads them in ``variants:`` of the image list and writes them into the manifest; execution points read them there
and in the setting ``default-images``. A condition is an architecture, an x86-64 level (``x86-64-v3``: this one or a higher one),
``gpu`` or a GPU of one vendor (``nvidia-gpu``), or a bound of a quantity: ``cuda>=12.4``, ``capability<9.0``, ``memory>=64GB``.
"""

from __future__ import annotations

from publisher.contract import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    Range = tuple[int, Optional[int]]

ARCHITECTURES = ("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x")
"""The architectures that Linux runs on, by Go's names."""
LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
_X86_64 = "amd64"
_GPU, _GPU_SUFFIX = "gpu", "-gpu"
VENDORS = ("amd", "intel", "nvidia")
_NVIDIA = "nvidia"
_QUANTITIES = {"cuda": "CUDA", "capability": "compute capability", "memory": "memory"}
"""The CUDA version of the GPU's driver and the GPU's compute capability, in tenths; the memory of the job's slot, in bytes."""
_OF_NVIDIA = ("cuda", "capability")
_MAX_VERSION = 100  # far above any major version of CUDA
_SIZES = {"TB": 10**12, "TiB": 1 << 40, "GB": 10**9, "GiB": 1 << 30, "MB": 10**6, "MiB": 1 << 20, "kB": 1000, "B": 1}


class HostCapacity:
    """What a host offers to an image.

    Attributes:
        arch: its architecture, as Go names it.
        level: its x86-64 level, 0 for other architectures.
        gpu: the vendor of the GPU that its jobs have, one of :data:`VENDORS`; ``other`` if that is unknown, empty for none.
        quantities: ``cuda``, ``capability`` and ``memory`` -> value as conditions count it; without those that are unknown.
    """

    __slots__ = ("arch", "gpu", "level", "quantities")

    def __init__(self, arch: str, level: int = 0, *, gpu: str = "", quantities: dict[str, int] | None = None) -> None:
        self.arch = arch
        self.level = level
        self.gpu = gpu
        self.quantities = quantities or {}


class Conditions:
    """Parsed conditions; a host meets them if it meets each.

    Attributes:
        arch: the required architecture, None for any.
        level: the required x86-64 level, 0 for any.
        gpu: ``gpu`` for any GPU, one of :data:`VENDORS` for that vendor's, empty if none is required.
        ranges: quantity -> the least value, and the first one that is too high or None.
    """

    __slots__ = ("arch", "gpu", "level", "ranges")

    def __init__(self, arch: str | None = None, level: int = 0, gpu: str = "", ranges: dict[str, Range] | None = None) -> None:
        self.arch = arch
        self.level = level
        self.gpu = gpu
        self.ranges = ranges or {}

    @classmethod
    def parse(cls, text: str) -> Conditions:
        """Return the conditions in a text, separated by commas; none for an empty text.

        Raises:
            ValueError: the text is not that, or no host can meet it; the message says what to write.
        """
        result = cls()
        for word in text.split(",") if text.strip() else ():
            both = result.both(_parse_word(word.strip()))
            if both is None:
                raise ValueError(f"no host can meet {word.strip()!r} beside the other conditions in {text!r}; remove one")
            result = both
        return result

    def __str__(self) -> str:
        """Return the conditions in the order of this class, without those that others imply; parsing returns the same ones."""
        words = [self.arch] if self.arch and not self.level else []
        words += [LEVELS[self.level - 2]] if self.level else []
        is_implied = self.gpu == _NVIDIA and any(name in self.ranges for name in _OF_NVIDIA)
        words += [] if is_implied or not self.gpu else [self.gpu if self.gpu == _GPU else f"{self.gpu}{_GPU_SUFFIX}"]
        for name, (low, high) in sorted(self.ranges.items()):
            words += [f"{name}>={_format(name, low)}"] if low else []
            words += [f"{name}<{_format(name, high)}"] if high is not None else []
        return ",".join(words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Conditions) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def both(self, other: Conditions) -> Conditions | None:
        """Return the conditions of which the hosts meet these and the other ones; None if no host can."""
        if self.arch and other.arch and self.arch != other.arch:
            return None
        gpus = {self.gpu, other.gpu} - {""}
        vendors = gpus - {_GPU}
        ranges = {name: _common(self.ranges.get(name), other.ranges.get(name)) for name in {**self.ranges, **other.ranges}}
        if len(vendors) > 1 or any(high is not None and low >= high for low, high in ranges.values()):
            return None
        gpu = next(iter(vendors or gpus), "")
        return Conditions(self.arch or other.arch, max(self.level, other.level), gpu, ranges)

    def covers(self, other: Conditions) -> bool:
        """Return whether every host that meets the other conditions meets these."""
        return self.both(other) == other

    def objections(self, host: HostCapacity) -> list[str]:
        """Return a text for each condition that a host does not meet; none if it meets all."""
        found = []
        if self.arch not in (None, host.arch):
            found.append(f"it needs {self.arch}, and this machine is {host.arch}")
        elif self.level > host.level:
            has = f"x86-64-v{host.level}" if host.level else host.arch
            found.append(f"it needs {LEVELS[self.level - 2]}, and this host has {has}")
        if self.gpu and self.gpu != host.gpu and not (host.gpu and self.gpu == _GPU):
            wanted = "a GPU" if self.gpu == _GPU else f"a GPU of {_shown(self.gpu)}"
            has = f"the job has one of {_shown(host.gpu)}" if host.gpu else "the job has none"
            return [*found, f"it needs {wanted}, and {has}"]
        for name, (low, high) in sorted(self.ranges.items()):
            value, bounds = host.quantities.get(name), str(Conditions(ranges={name: (low, high)}))
            if value is None:
                found.append(f"it needs {bounds}, and the {_QUANTITIES[name]} of this host is unknown")
            elif value < low or (high is not None and value >= high):
                found.append(f"it needs {bounds}, and this host has {_format(name, value)}")
        return found


def most_specific(fitting: dict[str, Conditions]) -> str:
    """Return the key of those conditions that no others narrow further; the first in alphabetical order of several.

    Args:
        fitting: key -> conditions that one host meets, at least one.
    """
    narrowest = [
        key
        for key, conditions in fitting.items()
        if not any(conditions != other and conditions.covers(other) for other in fitting.values())
    ]
    return min(narrowest)


def parse_version(text: str) -> int:
    """Return tenths from a version such as ``12.4`` or ``12``; raise ValueError if it has another form."""
    major, dot, minor = text.partition(".")
    if not (major.isascii() and major.isdigit() and int(major) < _MAX_VERSION) or (dot and minor not in tuple("0123456789")):
        raise ValueError(f"{text!r} is not a version; write one such as 12.4")
    return int(major) * 10 + int(minor or 0)


def _parse_word(word: str) -> Conditions:
    if word in LEVELS:
        return Conditions(_X86_64, LEVELS.index(word) + 2)
    if word.partition("/")[0] in ARCHITECTURES:
        return Conditions(word)
    vendor = word[: -len(_GPU_SUFFIX)] if word.endswith(_GPU_SUFFIX) else ""
    if word == _GPU or vendor in VENDORS:
        return Conditions(gpu=vendor or _GPU)
    for sign in (">=", "<"):
        name, found, bound = word.partition(sign)
        if found and name.strip() in _QUANTITIES:
            return _parse_bound(name.strip(), sign, bound.strip())
    known = f"an architecture, {', '.join(LEVELS)}, gpu, {', '.join(vendor + _GPU_SUFFIX for vendor in VENDORS)}"
    raise ValueError(f"{word!r} is not a condition; write {known}, or such as cuda>=12.4, capability<9.0 and memory>=64GB")


def _parse_bound(name: str, sign: str, text: str) -> Conditions:
    try:
        value = units.parse_size(text) if name == "memory" else parse_version(text)
    except ValueError as error:
        raise ValueError(f"{name}{sign}{text}: {error}") from None
    if not value:
        raise ValueError(f"{name}{sign}{text} says nothing; write a bound above 0, or remove it")
    bounds = (value, None) if sign == ">=" else (0, value)
    return Conditions(gpu=_NVIDIA if name in _OF_NVIDIA else "", ranges={name: bounds})


def _common(one: Range | None, other: Range | None) -> Range:
    (low, high), (other_low, other_high) = one or (0, None), other or (0, None)
    highs = [bound for bound in (high, other_high) if bound is not None]
    return max(low, other_low), min(highs, default=None)


def _format(name: str, value: int) -> str:
    if name != "memory":
        return f"{value // 10}.{value % 10}"
    return next(f"{value // size}{unit}" for unit, size in _SIZES.items() if value % size == 0)


def _shown(vendor: str) -> str:
    return {"amd": "AMD", "intel": "Intel", _NVIDIA: "NVIDIA"}.get(vendor, "an unknown vendor")
