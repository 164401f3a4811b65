"""What this host offers to images, read where a variant of an image has to be chosen.

HTCondor's ad of the job's slot (the machine ad) comes first, because the job gets the GPUs and the memory that it names. What it
does not say is taken from the kernel: the processor's flags, the memory, and the device files of GPUs.
"""

from __future__ import annotations

import os

from publisher.contract.conditions import VENDORS, HostCapacity
from publisher.resolver.system import classad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from publisher.resolver.system.classad import ParsedValue

_LEVEL_FLAGS = (
    {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"},
    {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"},
    {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
)
"""What levels 2, 3 and 4 of the x86-64 psABI add, as /proc/cpuinfo names it (``abm`` is LZCNT)."""
_NO_GPU = ("", "-1", "10000", "na", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that batch systems set for jobs without a GPU."""
_DEVICES = (("nvidia", "/dev", "nvidia"), ("amd", "/dev", "kfd"))
"""Vendor, directory, and the beginning of the names of its device files."""
_MICROARCH = "x86_64-v"
_FIRST_PROCESSOR = 16 << 10  # bytes of /proc/cpuinfo that describe it
_AMD_NAMES, _INTEL_NAMES = ("amd", "radeon", "instinct", "gfx"), ("intel",)


def read(arch: str, environ: Mapping[str, str]) -> HostCapacity:
    """Return what this host offers to a job.

    Args:
        arch: its architecture, as Go names it.
        environ: ``_CONDOR_MACHINE_AD`` is the path of the machine ad; CUDA_VISIBLE_DEVICES tells of GPUs where there is no ad.
    """
    ad = _read_machine_ad(environ.get("_CONDOR_MACHINE_AD"))
    devices = [vendor for vendor, directory, prefix in _DEVICES if _has_device(directory, prefix)]
    return from_ad(
        arch, ad, cpuinfo=_read_text("/proc/cpuinfo"), meminfo=_read_text("/proc/meminfo"), environ=environ, devices=devices
    )


def from_ad(
    arch: str,
    ad: Mapping[str, ParsedValue],
    *,
    cpuinfo: str = "",
    meminfo: str = "",
    environ: Mapping[str, str] | None = None,
    devices: Sequence[str] = (),
) -> HostCapacity:
    """Return what a host offers, from its machine ad and else from the other arguments. Pure.

    Args:
        arch: its architecture, as Go names it.
        ad: the machine ad, parsed; empty if there is none.
        cpuinfo: the text of the kernel's file in /proc.
        meminfo: likewise.
        environ: environment variables.
        devices: vendors of which the host has device files.
    """
    microarch = classad.get_string(ad, "Microarch")
    level = microarch[len(_MICROARCH) :] if microarch.startswith(_MICROARCH) else ""
    quantities = {name: value for name, value in _quantities(ad, meminfo).items() if value}
    count = classad.get_integer(ad, "GPUs")
    if count is not None:
        gpu = _vendor(ad) if count > 0 else ""
    else:
        gpu = (devices or ["other"])[0] if has_gpu(environ or {}, devices) else ""
    return HostCapacity(arch, int(level) if level.isdigit() else x86_64_level(cpuinfo), gpu=gpu, quantities=quantities)


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


def _quantities(ad: Mapping[str, ParsedValue], meminfo: str) -> dict[str, int]:
    """Return quantity -> value; of several GPUs the least counts, and 0 is unknown."""
    memory = classad.get_integer(ad, "Memory")
    total = next((line.split()[1] for line in meminfo.splitlines() if line.startswith("MemTotal:")), "0")
    supported = int(_least(ad, "MaxSupportedVersion"))  # 12040 is 12.4
    driver = _tenths(_least(ad, "DriverVersion")) or supported // 1000 * 10 + supported % 1000 // 10
    return {
        "memory": int(total) << 10 if memory is None else memory << 20,
        "cuda": driver,
        "capability": _tenths(_least(ad, "Capability")),
    }


def _least(ad: Mapping[str, ParsedValue], name: str) -> float:
    """Return the least value that a property has on the GPUs of the job; 0 if no GPU has it."""
    return min((value for value in _gpu_values(ad, name) if isinstance(value, (int, float))), default=0)


def _tenths(version: float) -> int:
    return int(version * 10 + 0.5)


def _vendor(ad: Mapping[str, ParsedValue]) -> str:
    """Return the vendor of the job's GPUs from their names; HTCondor finds most others by CUDA, so NVIDIA makes them."""
    names = [str(value).lower() for value in _gpu_values(ad, "DeviceName")]
    for vendor, marks in (("amd", _AMD_NAMES), ("intel", _INTEL_NAMES)):
        if any(mark in name for name in names for mark in marks):
            return vendor
    return VENDORS[-1] if names or _least(ad, "Capability") else "other"


def _gpu_values(ad: Mapping[str, ParsedValue], name: str) -> list[ParsedValue]:
    """Return the values of a property of the GPUs that are assigned to the job: of each, or what all have in common."""
    assigned = [word.strip() for word in classad.get_string(ad, "AssignedGPUs").split(",")]
    keys = [f"GPUs_{device.replace('-', '_')}.{name}".lower() for device in assigned]
    values = [ad[key] for key in keys if ad.get(key) is not None]
    common = ad.get(f"gpus_{name}".lower())
    return values or ([] if common is None else [common])


def _read_machine_ad(path: str | None) -> Mapping[str, ParsedValue]:
    try:
        with open(path or os.devnull, "rb") as file:
            return classad.parse(file.read(classad.MAX_BYTES))
    except OSError:
        return {}


def _read_text(path: str) -> str:
    """Return the beginning of a text file, without its last line if that is cut off; empty if there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_FIRST_PROCESSOR).rpartition("\n")[0]
    except OSError:
        return ""


def _has_device(directory: str, prefix: str) -> bool:
    try:
        names = os.listdir(directory)
    except OSError:
        return False
    return any(name == prefix or (name.startswith(prefix) and name[len(prefix) :].isdigit()) for name in names)
