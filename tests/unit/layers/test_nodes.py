from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.layers.nodes import ROOT, NodeTable

_PATHS = st.lists(st.sampled_from([b"a", b"b", b"c", b"long name"]), min_size=1, max_size=4)
_CHANGES = st.lists(st.tuples(st.sampled_from(["add", "add", "replace", "remove"]), _PATHS, st.binary(max_size=9)), max_size=60)

Model = dict[bytes, "tuple[int, bytes, Model]"]


def tree_of(nodes: NodeTable, top: int = ROOT) -> list[tuple[bytes, int, bytes, object]]:
    return [(nodes.name(node), nodes.values[node], nodes.target(node), tree_of(nodes, node)) for node in nodes.children(top)]


def listed(model: Model) -> list[tuple[bytes, int, bytes, object]]:
    return [(name, value, target, listed(below)) for name, (value, target, below) in model.items()]


def size(model: Model) -> int:
    return len(model) + sum(size(below) for _, _, below in model.values())


def find(nodes: NodeTable, path: list[bytes]) -> int:
    node = ROOT
    for name in path:
        node = nodes.find(node, name) if node else 0
    return node


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(_CHANGES, st.sampled_from([0, 1 << 20]))
def test_it_is_a_tree_of_ordered_dictionaries(changes: list[tuple[str, list[bytes], bytes]], garbage: int) -> None:
    nodes, model = NodeTable(garbage), Model()
    for value, (change, path, text) in enumerate(changes):
        *above, name = path
        target = text.replace(b"\0", b"")
        parent, below = find(nodes, above), model
        if not parent:
            continue
        for part in above:
            below = below[part][2]
        node = nodes.find(parent, name)
        assert bool(node) == (name in below)
        if change == "add" and not node:
            added = nodes.add(parent, name, value, target)
            assert nodes.path(added) == b"/".join(path)
            below[name] = (value, target, {})
        elif change == "replace" and node:
            nodes.replace(node, value, target)
            below[name] = (value, target, {})
        elif change == "remove" and node:
            nodes.remove(node)
            del below[name]
    assert tree_of(nodes) == listed(model)
    assert nodes.count == size(model)


def test_thousands_of_names_are_found_and_their_places_used_again() -> None:
    nodes = NodeTable()
    for round_ in range(3):
        top = nodes.add(ROOT, b"top", round_)
        for number in range(5000):
            nodes.add(top, b"%d" % number, number)
        assert all(nodes.values[nodes.find(top, b"%d" % number)] == number for number in range(5000))
        assert not nodes.find(top, b"5000")
        nodes.remove(top)
    assert (nodes.count, nodes.text_size) == (0, 0)
    assert len(nodes.values) == 5003
