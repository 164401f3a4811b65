from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from publisher.contract.conditions import Conditions
from publisher.resolver.select import capacity
from publisher.resolver.select.capacity import from_ad, has_gpu, x86_64_level
from publisher.resolver.system import classad

if TYPE_CHECKING:
    from pathlib import Path

V2 = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"
V3 = f"{V2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
V4 = f"{V3} avx512bw avx512cd avx512dq avx512f avx512vl"


@pytest.mark.parametrize(("flags", "expected"), [("", 1), (V2, 2), (V3, 3), (V4, 4), (V4.replace("bmi2 ", ""), 2)])
def test_the_level_of_an_x86_64_processor(flags: str, expected: int) -> None:
    assert (
        x86_64_level(f"processor\t: 0\nvmx flags\t: {V4}\nflags\t\t: fpu lm {flags}\n\nprocessor\t: 1\nflags\t\t: fpu\n")
        == expected
    )


@pytest.mark.parametrize("cpuinfo", ["", "Features\t: fp asimd\n", "flags\t\t: fpu vme\n"])
def test_other_processors_have_no_level(cpuinfo: str) -> None:
    assert x86_64_level(cpuinfo) == 0


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0", True),
        ("GPU-0aef", True),
        ("0,1", True),
        ("", False),
        ("-1", False),
        ("10000", False),
        ("na", False),
        ("NoDevFiles", False),
    ],
)
def test_the_batch_system_says_whether_there_is_a_gpu_for_jobs(visible: str, expected: bool) -> None:
    assert has_gpu({"CUDA_VISIBLE_DEVICES": visible}, ["/dev/nvidia0"]) is expected


def test_where_it_says_nothing_the_devices_do() -> None:
    assert has_gpu({}, ["/dev/nvidia0"])
    assert not has_gpu({}, [])


A100 = """
Microarch = "x86_64-v4"
Memory = 16384
GPUs = 1
AssignedGPUs = "GPU-a0223334"
AvailableGPUs = { GPUs_GPU_a0223334 }
GPUs_GPU_a0223334 = [ Id = "GPU-a0223334"; Capability = 8.0; DeviceName = "NVIDIA A100-SXM4-40GB"; DriverVersion = 12.4 ]
"""
MIXED = (
    A100.replace('"GPU-a0223334"\n', '"GPU-a0223334, GPU-b1223334"\n').replace("GPUs = 1", "GPUs = 2")
    + """
GPUs_GPU_b1223334 = [ Id = "GPU-b1223334"; Capability = 7.5; DeviceName = "TITAN RTX"; DriverVersion = 11.8 ]
"""
)
OLDER = """
GPUs = 1
GPUs_Capability = 8.600000000000001
GPUs_MaxSupportedVersion = 11080
"""
MI250 = """
GPUs = 1
GPUs_DeviceName = "AMD Instinct MI250X"
GPUs_Capability = 9.0
GPUs_DriverVersion = 6.2
"""


def unmet(ad: str, conditions: str) -> list[str]:
    """What a host with this machine ad lacks for an image with these conditions."""
    return Conditions.parse(conditions).objections(from_ad("amd64", classad.parse(ad.encode())))


@pytest.mark.parametrize(
    ("ad", "conditions"),
    [
        (A100, "x86-64-v4,nvidia-gpu,cuda>=12.4,capability>=8.0,capability<9.0,memory>=16GiB"),
        (MIXED, "cuda>=11.8,cuda<12.0,capability<7.6"),
        (OLDER, "gpu,cuda>=11.8,cuda<11.9,capability>=8.6,capability<8.7"),
        (MI250, "amd-gpu"),
        ('GPUs = 1\nGPUs_DeviceName = "Intel(R) Data Center GPU Max 1100"\n', "intel-gpu"),
        ("GPUs = 1\n", "gpu"),
    ],
)
def test_the_machine_ad_says_what_the_job_has(ad: str, conditions: str) -> None:
    assert unmet(ad, conditions) == []


@pytest.mark.parametrize(
    ("ad", "conditions", "why"),
    [
        (A100, "memory>=18GB", "it needs memory>=18GB, and this host has 16GiB"),
        (A100, "capability>=9.0", "it needs capability>=9.0, and this host has 8.0"),
        (A100, "amd-gpu", "it needs a GPU of AMD, and the job has one of NVIDIA"),
        (MI250, "cuda>=6.0", "it needs a GPU of NVIDIA, and the job has one of AMD"),
        ("GPUs = 0\nGPUs_Capability = 8.0\n", "gpu", "it needs a GPU, and the job has none"),
        ('Microarch = "x86_64-v2"\n', "x86-64-v3", "it needs x86-64-v3, and this host has x86-64-v2"),
        ("GPUs = 1\nGPUs_Capability = 8.0\n", "cuda>=12.0", "it needs cuda>=12.0, and the CUDA of this host is unknown"),
    ],
)
def test_what_the_host_lacks_is_said(ad: str, conditions: str, why: str) -> None:
    assert unmet(ad, conditions) == [why]


def test_without_an_ad_the_kernel_says_it() -> None:
    host = from_ad("amd64", {}, cpuinfo=f"flags : lm {V3}\n", meminfo="MemTotal:  16000000 kB\n", devices=["amd"])
    assert (host.level, host.gpu, host.quantities) == (3, "amd", {"memory": 16_384_000_000})
    assert from_ad("arm64", {}, environ={"CUDA_VISIBLE_DEVICES": "0"}).gpu == "other"


def test_the_machine_ad_is_read_from_the_file_that_htcondor_names(tmp_path: Path) -> None:
    ad = tmp_path / ".machine.ad"
    ad.write_text(A100)
    host = capacity.read("amd64", {"_CONDOR_MACHINE_AD": str(ad)})
    assert (host.level, host.gpu, host.quantities["cuda"]) == (4, "nvidia", 124)
    here = capacity.read("amd64", {"_CONDOR_MACHINE_AD": str(tmp_path / "none")})
    assert here.quantities["memory"] > 1 << 20
