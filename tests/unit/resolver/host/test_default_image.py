from __future__ import annotations

from collections import Counter

import pytest

from publisher.resolver.errors import ResolverUsageError
from publisher.resolver.host.default_image import HostCapacity, ImageOffer, choose, has_gpu, x86_64_level

V2 = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"
V3 = f"{V2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
V4 = f"{V3} avx512bw avx512cd avx512dq avx512f avx512vl"


def chosen(*offers: str, host: HostCapacity | None = None) -> Counter[str]:
    """What is drawn by a hundred draws that cover the whole range evenly."""
    read = [ImageOffer(text) for text in offers]
    return Counter(choose(read, host or HostCapacity("amd64", 4), draw / 100) for draw in range(100))


def test_images_are_drawn_by_their_weights() -> None:
    assert chosen("10%htc/rocky:8", "30%htc/rocky:9", "60%htc/debian:12") == {
        "htc/rocky:8": 10,
        "htc/rocky:9": 30,
        "htc/debian:12": 60,
    }


def test_weights_need_not_add_up_to_a_hundred() -> None:
    assert chosen("1%a", "3%b", "0%c") == {"a": 25, "b": 75}


def test_what_a_host_cannot_run_is_never_drawn_and_leaves_its_share_to_the_others() -> None:
    offers = ("50%old", "50%new,x86-64-v3", "50%arm,arm64")
    assert chosen(*offers, host=HostCapacity("amd64", 2)) == {"old": 100}
    assert chosen(*offers, host=HostCapacity("amd64", 3)) == {"old": 50, "new": 50}
    assert chosen(*offers, host=HostCapacity("arm64")) == {"old": 50, "arm": 50}


def test_images_for_gpus_go_where_one_is_and_alone() -> None:
    offers = ("50%plain", "50%cuda,gpu,amd64")
    assert chosen(*offers) == {"plain": 100}
    assert chosen(*offers, host=HostCapacity("amd64", 2, gpu=True)) == {"cuda": 100}
    assert chosen(*offers, host=HostCapacity("arm64", gpu=True)) == {"plain": 100}, "none for GPUs fits here"


def test_where_none_fits_there_is_no_default_image() -> None:
    assert chosen("1%arm,arm64") == {"": 100}
    assert chosen() == {"": 100}


@pytest.mark.parametrize("text", ["htc/rocky:9", "%htc/rocky:9", "x%htc/rocky:9", "-1%a", "5%", "5%,gpu", "5%a,", "5%a,,gpu"])
def test_an_offer_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ResolverUsageError, match="WEIGHT%NAME"):
        ImageOffer(text)


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
