"""Entries with tag patterns: parsing, contradictions and expansion."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract.reference import Reference
from publisher.errors import ListError
from publisher.images import reader
from publisher.images.reader import Entry, Pattern
from publisher.oci import Platform

BOTH = frozenset({"sandbox", "sif"})
AMD64 = (Platform("linux", "amd64"),)
DIGEST = "sha256:" + "a" * 64
GROMACS = Reference("docker.io", "gromacs/gromacs")


def listed(*entries: str) -> str:
    """Return the text of a list with one group; its first entry is in line 5."""
    return "version: 1\ngroups:\n  - title: Some\n    images:\n" + "".join(f"      - {entry}\n" for entry in entries)


def parse(*entries: str, template: str = reader.NAME_TEMPLATES[0]) -> reader.ImageList:
    return reader.parse(listed(*entries).encode(), "images.yaml", template)


def pattern(entry: str) -> Pattern:
    found = parse(entry)
    assert found.entries == ()
    (only,) = found.patterns
    return only


def problems(*entries: str, template: str = reader.NAME_TEMPLATES[0]) -> list[str]:
    with pytest.raises(ListError) as refused:
        parse(*entries, template=template)
    return refused.value.problems


@pytest.mark.parametrize(
    "entry", ["gromacs/gromacs:2024.*", "{image: gromacs/gromacs, tags: ['2024.*']}", "image: gromacs/gromacs:2024.*"]
)
def test_a_tag_pattern_is_part_of_a_reference_or_one_of_the_tags(entry: str) -> None:
    assert pattern(entry) == Pattern(GROMACS, ("2024.*",), AMD64, BOTH, group="Some")


def test_a_pattern_has_all_that_an_entry_says() -> None:
    text = """\
image: ghcr.io/x/y
        tags: ["1.*", "2.?"]
        exclude: ["*-rc*", "1.0"]
        keep: 3
        order: name
        platforms: [linux/arm64]
        formats: [sif]
        owner: Someone
        project: Something
        expires: 2027-01-31
        max_size: 1 GB
        private: allowed"""
    assert pattern(text) == Pattern(
        Reference("ghcr.io", "x/y"),
        ("1.*", "2.?"),
        (Platform("linux", "arm64"),),
        frozenset({"sif"}),
        exclude=("*-rc*", "1.0"),
        keep=3,
        order="name",
        owner="Someone",
        project="Something",
        expires=date(2027, 1, 31),
        max_size=10**9,
        private=True,
        group="Some",
    )
    assert (pattern(text).line, str(pattern(text))) == (5, "ghcr.io/x/y:1.*|2.?")


def test_tags_by_name_are_entries_beside_the_tag_patterns() -> None:
    found = parse("{image: a/b, tags: ['1.*', latest, '2.0'], keep: 2, formats: [sif]}")
    assert [entry.name for entry in found.entries] == ["a/b:latest", "a/b:2.0"]
    assert {entry.formats for entry in found.entries} == {frozenset({"sif"})}
    assert [one.tags for one in found.patterns] == [("1.*",)]
    assert [entry.name for entry in parse("{image: a/b, tags: ['1', '2']}").entries] == ["a/b:1", "a/b:2"]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("a*/b:1", "has a wildcard in its registry or repository; only tags can have wildcards, write one entry per repository"),
        ("'*.io/a/b:1'", "has a wildcard in its registry or repository"),
        ("a/[bc]:1.*", "has a wildcard in its registry or repository"),
        ("a/b:[12", "the '[' in '[12' is not closed; write '[...]'"),
        ("a/b:v]", "no tag can match 'v]'"),
        ("a/b:.*", "no tag can match '.*'"),
        ("'a/b:1 *'", "no tag can match '1 *'"),
        (f"a/b:1.*@{DIGEST}", "has a tag pattern and a digest; write 'a/b:1.*', or a single tag with the digest"),
        ("A/b:*", "the repository 'A/b' has capital letters"),
        ("../x:*", "contains '..', which is reserved and cannot be published"),
        (".images/x:*", "contains '.images', which is reserved and cannot be published"),
        ("a/.arch:*", "contains '.arch:*', which is reserved and cannot be published"),
        (f"{'a' * 200}:*", "the tags of docker.io/library/aaa"),
        ("{image: 'a/b:1', tags: ['1.*']}", "tags: the image already has a tag; write the repository alone, docker.io/a/b"),
        ("{image: 'a/b:1.*', tags: ['2.*']}", "tags: the image already has a tag"),
        (f"{{image: 'a/b:1@{DIGEST}', tags: ['2.*']}}", "tags: the image already has a tag"),
        ("{image: a/b, tags: []}", "something in the list is expected here, not an empty list"),
        ("{image: a/b, tags: '1.*'}", "a list ('- ' before each) is expected here, not a text"),
        ("{image: a/b, tags: ['1.*', '1.*']}", "1.* appears twice; remove one"),
        ("{image: a/b, tags: [1.10]}", "YAML reads 1.10 as a number; write it in quotes: '1.10'"),
        ("{image: a/b, tags: ['']}", "'' is not a valid tag or tag pattern"),
        ("{image: a/b, tags: ['-x']}", "'-x' is not a valid tag; write letters, digits"),
        (f"{{image: a/b, tags: ['{'x' * 129}']}}", "is not a valid tag or tag pattern; write 1 to 128 characters"),
        ("{image: a/b, tags: [*-py3]}", "aliases (*-py3) are not allowed; write out the value, or '*-py3' in quotes"),
        ("{image: a/b, tags: [*]}", "put a text that begins with * into quotes: '*'"),
        (
            "{image: 'a/b:1', keep: 3}",
            "keep: it has no effect without a tag pattern; remove it, or write a tag pattern such as '1.*'",
        ),
        ("{image: 'a/b:1', exclude: ['2']}", "exclude: it has no effect without a tag pattern"),
        ("{image: a/b, tags: ['1', '2'], keep: 1}", "keep: it has no effect without a tag pattern"),
        (
            "{image: 'a/b:*', keep: 0}",
            "keep: '0' is not a number of tags to keep; write 1 or more, or leave the key out to keep all",
        ),
        ("{image: 'a/b:*', keep: -1}", "keep: '-1' is not a number of tags to keep"),
        ("{image: 'a/b:*', keep: 1.5}", "keep: '1.5' is not a number of tags to keep"),
        ("{image: 'a/b:*', keep: true}", "keep: 'True' is not a number of tags to keep"),
        ("{image: 'a/b:*', order: name}", "order: it has no effect without keep; add keep and the number of tags to keep"),
        ("{image: 'a/b:*', keep: 1, order: age}", "order: 'age' is not allowed here; write 'version' or 'name'"),
        ("{image: 'a/b:1.*', exclude: ['1*']}", "exclude: it excludes every tag that the tag patterns match"),
        ("{image: 'a/b:1.*', exclude: ['/']}", "exclude: '/' is not a valid tag"),
        ("{image: a/b, tags: [latest, '1.*'], exclude: ['la*']}", "exclude: it excludes 'latest', which the entry lists by name"),
    ],
)
def test_a_tag_pattern_that_cannot_be_meant_is_refused_with_what_to_write(entry: str, says: str) -> None:
    (said,) = problems(entry)
    assert said.startswith("images.yaml:5: ")
    assert says in said


def test_each_key_that_is_wrong_has_its_line() -> None:
    said = problems("image: a/b:*\n        order: name", "image: a/b:1\n        exclude: ['2']\n        keep: 1")
    assert [line.split(": ")[:2] for line in said] == [
        ["images.yaml:6", "order"],
        ["images.yaml:8", "exclude"],
        ["images.yaml:9", "keep"],
    ]


# names that two could have


def test_two_tag_patterns_of_a_repository_with_a_tag_in_common_are_refused() -> None:
    (said,) = problems("a/b:1.*", "docker.io/a/b:*-py3")
    assert said == (
        "images.yaml:6: docker.io/a/b also has a tag pattern in line 5, and both match tags such as '1.-py3';"
        " combine them in the tags of one entry, or exclude what the other entry matches"
    )


def test_two_tag_patterns_of_a_repository_without_a_tag_in_common_are_fine() -> None:
    assert len(parse("a/b:1.*", "a/b:2.*").patterns) == 2
    assert len(parse("a/b:1.*", "{image: 'a/b:*', exclude: ['1.*']}").patterns) == 2


def test_tag_patterns_of_two_registries_with_one_name_are_refused() -> None:
    (said,) = problems("x/y:*", "ghcr.io/x/y:1.*")
    assert said == (
        "images.yaml:6: ghcr.io/x/y and docker.io/x/y in line 5 would both publish tags as x/y:TAG, such as '1.'; remove one"
    )
    assert len(parse("x/y:2.*", "ghcr.io/x/y:1.*").patterns) == 2
    assert len(parse("x/y:*", "ghcr.io/x/y:*", template=reader.NAME_TEMPLATES[1]).patterns) == 2


@pytest.mark.parametrize("entries", [("x/y:1.*", "ghcr.io/x/y:1.0"), ("ghcr.io/x/y:1.0", "x/y:1.*")])
def test_an_entry_and_the_tag_pattern_of_another_registry_are_refused(entries: tuple[str, str]) -> None:
    (said,) = problems(*entries)
    line, other = entries.index("ghcr.io/x/y:1.0") + 5, entries.index("x/y:1.*") + 5
    assert said == (
        f"images.yaml:{line}: ghcr.io/x/y:1.0 and a tag of docker.io/x/y that the tag pattern in line {other}"
        f" matches would both be published as x/y:1.0; remove one, or exclude the tag there"
    )


def test_an_entry_that_the_tag_pattern_of_another_registry_leaves_out_is_fine() -> None:
    assert parse("{image: 'x/y:1.*', exclude: ['1.0']}", "ghcr.io/x/y:1.0", "ghcr.io/x/y:2").entries


def test_an_entry_beside_a_tag_pattern_of_its_own_repository_is_fine() -> None:
    found = parse("x/y:*", "{image: 'x/y:1', formats: [sif]}")
    assert (len(found.entries), len(found.patterns)) == (1, 1)


def test_a_wrong_entry_does_not_hide_what_is_wrong_between_others() -> None:
    said = problems("x/y:*", "{image: 'ghcr.io/x/y:1', ownr: me}", "{image: 'x/y:1.*', formats: [tar]}")
    assert [line[:15] for line in said] == ["images.yaml:6: ", "images.yaml:6: ", "images.yaml:7: ", "images.yaml:7: "]


@pytest.mark.untraced
def test_more_tag_patterns_for_a_name_than_are_compared_are_refused() -> None:
    (said,) = problems(*(f"a/b:{number:03}*" for number in range(101)))
    assert said.startswith(
        "images.yaml:105: more than 100 entries with tag patterns publish as a/b:TAG; combine them in the tags of one entry"
    )


def test_tag_patterns_that_cannot_be_told_apart_are_refused() -> None:
    left = ", ".join(f"'*{first}{'?' * 40}'" for first in "abcdef")
    (said,) = problems(f"{{image: 'a/b:{'?' * 100}', exclude: [{left}]}}")
    assert said.startswith("images.yaml:5: exclude: these tag patterns are too complex to be compared")
    said = problems(f"{{image: 'a/b:*', exclude: [{left}]}}", f"a/b:{'?' * 100}")[0]
    assert said.startswith("images.yaml:6: these tag patterns are too complex to be compared")
    assert said.endswith("(the other entry is in line 5)")


# expand


TAGS = ["latest", "2024.1", "2024.10", "2024.2", "2023.4", "2024.3-rc1", "2024.2"]


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.name.removeprefix("gromacs/gromacs:") for entry in entries]


def test_a_pattern_expands_to_the_tags_that_it_takes_newest_first() -> None:
    found = reader.expand(pattern("{image: 'gromacs/gromacs:2024.*', exclude: ['*-rc*']}"), TAGS)
    assert names(found) == ["2024.10", "2024.2", "2024.1"]


def test_only_the_newest_are_kept_by_the_order_that_is_stated() -> None:
    assert names(reader.expand(pattern("{image: 'gromacs/gromacs:2024.*', keep: 2}"), TAGS)) == ["2024.10", "2024.3-rc1"]
    assert names(reader.expand(pattern("{image: 'gromacs/gromacs:2024.*', keep: 2, order: name}"), TAGS)) == [
        "2024.3-rc1",
        "2024.2",
    ]


def test_no_tags_expand_to_nothing() -> None:
    assert reader.expand(pattern("gromacs/gromacs:*"), []) == ()


def test_expanded_entries_have_all_that_the_pattern_says() -> None:
    text = (
        "{image: 'x/y:1.*', platforms: [linux/arm64], formats: [sif], owner: A, project: B, expires: 2027-01-31,"
        " max_size: 1 GB, private: allowed}"
    )
    (entry,) = reader.expand(pattern(text), ["1.0", "2.0"])
    assert entry == Entry(
        "x/y:1.0",
        Reference("docker.io", "x/y", "1.0"),
        (Platform("linux", "arm64"),),
        frozenset({"sif"}),
        owner="A",
        project="B",
        expires=date(2027, 1, 31),
        max_size=10**9,
        private=True,
        group="Some",
    )
    assert entry.line == 5


def test_expanded_names_follow_the_template() -> None:
    found = parse("ghcr.io/x/y:*", template=reader.NAME_TEMPLATES[1]).patterns[0]
    assert [entry.name for entry in reader.expand(found, ["1"])] == ["ghcr.io/x/y:1"]
    assert found.covers("ghcr.io/x/y:1")
    assert not found.covers("x/y:1")


@pytest.mark.parametrize(
    ("name", "covered"),
    [
        ("x/y:1.0", True),
        ("x/y:1.0-rc1", False),
        ("x/y:2.0", False),
        ("x/z:1.0", False),
        ("y:1.0", False),
        ("x/y", False),
        ("", False),
    ],
)
def test_a_pattern_covers_the_names_that_could_come_from_it(name: str, covered: bool) -> None:
    assert pattern("{image: 'x/y:1.*', exclude: ['*-rc*'], keep: 1}").covers(name) == covered


def test_an_entry_wins_over_a_tag_patterns_of_the_same_name() -> None:
    found = parse("x/y:*", "{image: 'x/y:1', formats: [sif]}", "a/b:1")
    whole = found.merge(reader.expand(found.patterns[0], ["1", "2"]))
    assert [(entry.name, entry.line) for entry in whole] == [("x/y:2", 5), ("x/y:1", 6), ("a/b:1", 7)]
    assert whole[1].formats == {"sif"}


_TAGS = st.lists(st.from_regex(r"[a-z0-9][a-z0-9.-]{0,6}", fullmatch=True), max_size=10)


@pytest.mark.untraced
@given(
    _TAGS,
    st.data(),
    st.sampled_from(["{image: 'x/y:*', keep: 3}", "{image: 'x/y:*', exclude: ['1*'], keep: 2, order: name}", "x/y:?*"]),
)
def test_what_a_pattern_expands_to_does_not_depend_on_how_the_tags_come(tags: list[str], data: st.DataObject, entry: str) -> None:
    one = pattern(entry)
    found = reader.expand(one, tags)
    assert found == reader.expand(one, data.draw(st.permutations(tags)))
    assert all(one.covers(made.name) for made in found)
    assert len(found) == len({made.name for made in found})
