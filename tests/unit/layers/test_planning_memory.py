"""No layers within the limits take more than 300 MB; ``ci/fuzz`` searches for such layers for longer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings, target

from publisher.errors import LayerError
from publisher.layers.flatten import FlattenedTree
from tests.support.images.planning_memory import BAR, LIMITS, STACKS, Crowd, peak

_MOST = LIMITS.entries - 300
_WORST = {
    "directories without entries": Crowd(b"0", _MOST // 50, 48, fresh=True, width=1, target=1, through=False, removed=0),
    "files through a link": Crowd(b"0", _MOST, 200, fresh=False, width=14, target=1, through=True, removed=0),
    "directories": Crowd(b"5", _MOST, 0, fresh=False, width=8, target=1, through=False, removed=0),
    "hard links": Crowd(b"1", _MOST, 10, fresh=False, width=14, target=1, through=False, removed=0),
    "links": Crowd(b"2", _MOST, 0, fresh=False, width=8, target=20, through=False, removed=0),
    "long names": Crowd(b"0", 2500, 0, fresh=False, width=250, target=1, through=False, removed=0),
    "names that are removed again": Crowd(b"2", 2500, 1, fresh=False, width=100, target=100, through=False, removed=2),
}


@pytest.mark.untraced
@pytest.mark.parametrize("name", _WORST)
def test_crowds_within_the_limits_fit_into_memory(name: str) -> None:
    crowd = _WORST[name]
    FlattenedTree(LIMITS).apply(crowd.entries(0))  # is not refused
    assert peak([[crowd]]) < BAR


@pytest.mark.untraced
@settings(max_examples=15, deadline=None, suppress_health_check=[*HealthCheck], derandomize=True, database=None)
@given(STACKS)
def test_a_search_finds_no_layers_that_need_more(stack: list[list[Crowd]]) -> None:
    needed = peak(stack)
    target(float(needed))
    assert needed < BAR


def test_a_small_layer_cannot_name_a_million_directories() -> None:
    deep = b"/".join([b"d"] * 1885)
    with pytest.raises(LayerError, match="more than 256 directories in each other"):
        FlattenedTree().apply([(b"0", deep + b"/f", b"")])
    layer = [(b"0", b"/".join([b"%d" % number] + [b"d"] * 250), b"") for number in range(100)]
    with pytest.raises(LayerError, match="more than 20000 entries"):
        FlattenedTree(LIMITS).apply(layer)


def test_names_and_targets_have_a_limit_of_their_own() -> None:
    for kind, name, link in ((b"0", b"%0200d", b""), (b"2", b"%d", b"t" * 200)):
        with pytest.raises(LayerError, match="names and links of the image have more than 671088 bytes"):
            FlattenedTree(LIMITS).apply((kind, name % number, link) for number in range(5000))


@pytest.mark.untraced
def test_layers_together_have_a_limit() -> None:
    tree = FlattenedTree(LIMITS)
    for _ in range(4):
        tree.apply([(b"0", b"a", b"")] * 20_000)
    with pytest.raises(LayerError, match="layers have more than 80000 entries together"):
        tree.apply([(b"0", b"a", b"")])


def test_names_that_were_removed_make_room() -> None:
    tree = FlattenedTree(LIMITS)
    for number in range(4):
        names = [b"%d/%0150d" % (number, name) for name in range(4000)]
        tree.apply([(b"0", b".wh.%d" % (number - 1), b""), *((b"0", name, b"") for name in names)])
    assert tree.finish().entry_count == 4000
