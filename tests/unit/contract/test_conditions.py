from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract.conditions import Conditions, HostCapacity, most_specific

V3 = HostCapacity("amd64", 3)
A100 = HostCapacity("amd64", 4, gpu="nvidia", quantities={"cuda": 124, "capability": 80, "memory": 64 * 10**9})
WORDS = (
    *("amd64", "arm64", "x86-64-v2", "x86-64-v4", "gpu", "nvidia-gpu", "amd-gpu"),
    *("cuda>=11.8", "cuda>=12.4", "cuda<12.4", "capability>=8.0", "memory>=64GB", "memory<64GB"),
)
HOSTS = st.builds(
    HostCapacity,
    st.sampled_from(["amd64", "arm64"]),
    st.integers(0, 4),
    gpu=st.sampled_from(["", "amd", "nvidia", "other"]),
    quantities=st.fixed_dictionaries(
        {},
        optional={
            "cuda": st.sampled_from([110, 118, 124]),
            "capability": st.sampled_from([75, 80]),
            "memory": st.sampled_from([10**9, 64 * 10**9]),
        },
    ),
)


def parsed(words: list[str]) -> Conditions | None:
    """The conditions of these words, None if no host can meet them all."""
    try:
        return Conditions.parse(",".join(words))
    except ValueError:
        return None


CONDITIONS = st.lists(st.sampled_from(WORDS), max_size=4).map(parsed).filter(lambda found: found is not None)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("arm64", "arm64"),
        ("arm/v7", "arm/v7"),
        ("amd64, x86-64-v3", "x86-64-v3"),
        ("x86-64-v2,x86-64-v4", "x86-64-v4"),
        ("gpu,nvidia-gpu", "nvidia-gpu"),
        ("nvidia-gpu,cuda>=12", "cuda>=12.0"),
        ("cuda < 13.0, cuda >= 11.8", "cuda>=11.8,cuda<13.0"),
        ("memory>=64 GB,cuda>=12.4,gpu", "cuda>=12.4,memory>=64GB"),
        ("memory>=1536 MiB", "memory>=1536MiB"),
    ],
)
def test_one_text_stands_for_all_that_mean_the_same(text: str, canonical: str) -> None:
    conditions = Conditions.parse(text)
    assert str(conditions) == canonical
    assert Conditions.parse(canonical) == conditions


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpus", "'gpus' is not a condition; write an architecture"),
        ("x86-64-v5", "is not a condition"),
        ("gpu,", "'' is not a condition"),
        ("arm64,x86-64-v3", "no host can meet 'x86-64-v3' beside"),
        ("amd-gpu,cuda>=12.0", "no host can meet"),
        ("cuda>=13.0,cuda<12.0", "no host can meet"),
        ("cuda>=twelve", "cuda>=twelve: 'twelve' is not a version"),
        ("cuda>=12.44", "is not a version"),
        ("capability>=0", "says nothing"),
        ("memory>=much", "memory>=much: 'much' is not a valid size"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Conditions.parse(text)


@pytest.mark.parametrize(
    ("host", "text", "why"),
    [
        (V3, "x86-64-v3", []),
        (V3, "arm64", ["it needs arm64, and this machine is amd64"]),
        (V3, "x86-64-v4,gpu", ["it needs x86-64-v4, and this host has x86-64-v3", "it needs a GPU, and the job has none"]),
        (HostCapacity("amd64", 0), "x86-64-v2", ["it needs x86-64-v2, and this host has amd64"]),
        (V3, "cuda>=12.4", ["it needs a GPU of NVIDIA, and the job has none"]),
        (V3, "memory>=1GB", ["it needs memory>=1GB, and the memory of this host is unknown"]),
        (A100, "x86-64-v4,cuda>=12.4,cuda<12.5,capability>=8.0,memory>=64GB", []),
        (A100, "amd-gpu", ["it needs a GPU of AMD, and the job has one of NVIDIA"]),
        (
            A100,
            "cuda<12.4,memory>=65GB",
            ["it needs cuda<12.4, and this host has 12.4", "it needs memory>=65GB, and this host has 64GB"],
        ),
        (HostCapacity("amd64", gpu="other"), "gpu", []),
        (HostCapacity("amd64", gpu="other"), "intel-gpu", ["it needs a GPU of Intel, and the job has one of an unknown vendor"]),
    ],
)
def test_what_a_host_lacks(host: HostCapacity, text: str, why: list[str]) -> None:
    assert Conditions.parse(text).objections(host) == why


@given(CONDITIONS, CONDITIONS, HOSTS)
def test_both_are_met_by_the_hosts_that_meet_each(one: Conditions, other: Conditions, host: HostCapacity) -> None:
    both = one.both(other)
    meets_each = not one.objections(host) and not other.objections(host)
    assert meets_each == (both is not None and not both.objections(host))
    if one.covers(other) and not other.objections(host):
        assert not one.objections(host)


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        ([""], ""),
        (["", "x86-64-v2", "x86-64-v3"], "x86-64-v3"),
        (["", "gpu", "cuda>=11.8", "cuda>=12.4"], "cuda>=12.4"),
        (["gpu", "x86-64-v3", "x86-64-v3,gpu"], "x86-64-v3,gpu"),
        (["x86-64-v3", "gpu"], "gpu"),
    ],
)
def test_the_most_specific_is_the_one_that_no_other_narrows(texts: list[str], chosen: str) -> None:
    assert most_specific({text: Conditions.parse(text) for text in texts}) == chosen
