from __future__ import annotations

from collections import Counter

import pytest

from publisher.contract.conditions import HostCapacity
from publisher.resolver.errors import ResolverUsageError
from publisher.resolver.host.default_image import ImageOffer, choose


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
    assert chosen(*offers, host=HostCapacity("amd64", 2, gpu="nvidia")) == {"cuda": 100}
    assert chosen(*offers, host=HostCapacity("arm64", gpu="nvidia")) == {"plain": 100}, "none for GPUs fits here"


def test_where_none_fits_there_is_no_default_image() -> None:
    assert chosen("1%arm,arm64") == {"": 100}
    assert chosen() == {"": 100}


@pytest.mark.parametrize(
    "text", ["htc/rocky:9", "%htc/rocky:9", "x%htc/rocky:9", "-1%a", "5%", "5%,gpu", "5%a,", "5%a,,gpu", "5%a,gpus"]
)
def test_an_offer_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ResolverUsageError, match="WEIGHT%NAME"):
        ImageOffer(text)
