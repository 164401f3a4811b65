"""Import of the list of cvmfs-singularity-sync: each entry keeps its name or is reported."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.errors import ListError, UsageError
from publisher.images import reader
from publisher.images.importers import convert as importing
from publisher.system import yamlfile
from tests.support.checkout import ROOT
from tests.support.publisher.shared_data import shared

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.images.importers.convert import Imported
    from publisher.images.reader import Entry, ImageList, Pattern

HEX = "a" * 64


def convert(*lines: str) -> Imported:
    return importing.convert("\n".join(lines).encode(), "old.txt", "docker-images")


def read(imported: Imported) -> ImageList:
    return reader.parse(imported.text.encode(), "images.yaml")


def sources(listed: ImageList) -> dict[str, str]:
    """Return CVMFS name -> registry, tag patterns included."""
    found = {entry.name: entry.reference.registry for entry in listed.entries}
    for pattern in listed.patterns:
        found |= {f"{pattern.reference.repository}:{tag}": pattern.reference.registry for tag in pattern.tags}
    return found


def old_tool(entry: str) -> tuple[str, str]:
    """Return the name and registry of an entry by the old tool's steps, implemented independently from their description."""
    registry = "docker.io"
    namespace, slash, image = entry.partition("/")
    if not slash:
        namespace, image = "library", entry
    elif "/" in image:
        registry = namespace
        namespace, _, image = image.partition("/")
    repository, tag = image.split(":") if image.count(":") == 1 else (image.split(":")[0], "latest")
    hub = ("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
    return f"{namespace}/{repository}:{tag}", "docker.io" if registry in hub else registry


# the pool's list


def test_the_pools_list_keeps_every_name_and_every_source() -> None:
    path = shared("docker_images.txt")
    imported = importing.load(path)
    assert imported.problems == []
    lines = [line.strip() for line in path.read_text().split("\n")]
    entries = [line for line in lines if line and not line.startswith("#")]
    assert len(entries) == 562
    assert sources(read(imported)) == dict(map(old_tool, entries))


@pytest.mark.untraced
def test_the_repositorys_own_list_is_the_pools_with_titles_of_our_own() -> None:
    def untitled(listed: ImageList) -> tuple[list[Entry], list[Pattern]]:
        return [replace(one, group="") for one in listed.entries], [replace(one, group="") for one in listed.patterns]

    imported = read(importing.load(shared("docker_images.txt")))
    assert untitled(reader.load(ROOT / "images.yaml")) == untitled(imported)


# the old grammar


@pytest.mark.parametrize(
    ("entry", "name", "registry"),
    [
        ("debian", "library/debian:latest", "docker.io"),
        ("debian:12", "library/debian:12", "docker.io"),
        ("a/b:1", "a/b:1", "docker.io"),
        ("  a/b:1 \t\r", "a/b:1", "docker.io"),
        ("docker.io/x/y", "x/y:latest", "docker.io"),
        ("registry.hub.docker.com/x/y:1", "x/y:1", "docker.io"),
        ("ghcr.io/x/y:1", "x/y:1", "ghcr.io"),
        ("localhost/x/y:1", "x/y:1", "localhost"),
        ("localhost:5000/x/y:1", "x/y:1", "localhost:5000"),
        ("reg.org/a/b/c/d:1", "a/b/c/d:1", "reg.org"),
        ("a/b:*", "a/b:*", "docker.io"),
        ("a/b:v[12].?-*", "a/b:v[12].?-*", "docker.io"),
        ("ghcr.io/a/b:1.*", "a/b:1.*", "ghcr.io"),
    ],
)
def test_an_entry_keeps_its_name_and_source(entry: str, name: str, registry: str) -> None:
    imported = convert(entry)
    assert imported.problems == []
    assert sources(read(imported)) == {name: registry}


@pytest.mark.parametrize(
    ("entry", "name", "written"),
    [
        (f"a/b:1@sha256:{HEX}", "a/b:latest", "a/b:latest"),
        (f"debian:1@sha256:{HEX}", "library/debian:latest", "library/debian:latest"),
        ("a/b:1:2", "a/b:latest", "a/b:latest"),
        ("ghcr.io/foo", "ghcr.io/foo:latest", "docker.io/ghcr.io/foo:latest"),
        ("ghcr.io/foo:1", "ghcr.io/foo:1", "docker.io/ghcr.io/foo:1"),
        ("docker.io/foo", "docker.io/foo:latest", "docker.io/docker.io/foo:latest"),
    ],
)
def test_an_entry_that_meant_something_else_than_it_seems_keeps_its_name_and_is_told(entry: str, name: str, written: str) -> None:
    imported = convert("# Some", entry)
    assert imported.problems == [f"old.txt:2: the old tool read {entry!r} as {name} from docker.io; it is imported as {written}"]
    assert sources(read(imported)) == {name: "docker.io"}


@pytest.mark.parametrize(
    ("entry", "was", "why"),
    [
        ("localhost:5000/foo", "'localhost:5000/foo:latest' from 'docker.io'", "it would be localhost:5000/foo:latest"),
        ("foo/bar/baz:1", "'bar/baz:1' from 'foo'", "it would be docker.io/foo/bar/baz:1"),
        ("a/b:", "'a/b:' from 'docker.io'", "'' is not a tag"),
        ("a/b@sha256:abcd", "'a/b@sha256:abcd' from 'docker.io'", "'sha256:abcd' is not a digest"),
        (f"a/b@sha256:{HEX}", f"'a/b@sha256:{HEX}' from 'docker.io'", "has a digest but no tag"),
        ("a/b:v?", "'a/b:v?' from 'docker.io'", "it would be a tag pattern for docker.io/a/b"),
        ("a/b:[12]", "'a/b:[12]' from 'docker.io'", "it would be a tag pattern for docker.io/a/b"),
        ("a/b:[*", "'a/b:[*' from 'docker.io'", "the '[' in '[*' is not closed"),
        ("a*/b:1", "'a*/b:1' from 'docker.io'", "has a wildcard in its registry or repository"),
        ("docker://a/b", "'/a/b:latest' from 'docker:'", "it would be docker.io/a/b:latest"),
        ("a//b", "'/b:latest' from 'a'", "is not a repository"),
        ("reg.io/../../x:1", "'../../x:1' from 'reg.io'", "contains '..', which is reserved and cannot be published"),
        (".images/aa:1", "'.images/aa:1' from 'docker.io'", "contains '.images', which is reserved and cannot be published"),
        ("HTC/x:1", "'HTC/x:1' from 'docker.io'", "the repository 'HTC/x' has capital letters"),
        ("a/b:1 # new", "'a/b:1 # new' from 'docker.io'", "comments need lines of their own"),
    ],
)
def test_an_entry_that_cannot_keep_its_name_is_told_and_left_out(entry: str, was: str, why: str) -> None:
    imported = convert("good/one:1", entry, "good/two:1")
    (told,) = imported.problems
    assert told.startswith(f"old.txt:2: not imported: {entry!r}: the old tool read it as {was}; ")
    assert why in told
    assert list(sources(read(imported))) == ["good/one:1", "good/two:1"]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["a/b:1", "a/b:1"], "docker.io/a/b:1 is already listed in line 1"),
        (["debian", "library/debian:latest"], "docker.io/library/debian:latest is already listed in line 1"),
        (["a/b:*", "a/b:*"], "a/b:* is already listed in line 1"),
        (["x/y:1", "ghcr.io/x/y:1"], "ghcr.io/x/y:1 and docker.io/x/y:1 in line 1 would both be published as x/y:1"),
        (["x/y:*", "ghcr.io/x/y:v*"], "ghcr.io/x/y and docker.io/x/y in line 1 would both publish tags as x/y:TAG"),
        (
            ["x/y:*", "ghcr.io/x/y:1"],
            "a tag of docker.io/x/y that the tag pattern in line 1 matches would both be published as x/y:1",
        ),
    ],
)
def test_the_second_of_two_with_one_name_is_told_and_left_out(lines: list[str], says: str) -> None:
    imported = convert(*lines)
    (told,) = imported.problems
    assert told.startswith("old.txt:2: ")
    assert says in told
    assert sources(read(imported)) == sources(read(convert(lines[0])))


def test_wildcards_with_tags_in_common_become_one_entry() -> None:
    imported = convert("# Some", "a/b:1.*", "a/b:2.*", "c/d:1", "a/b:*", "a/b:3.*")
    assert imported.problems == []
    (pattern,) = read(imported).patterns
    assert pattern.tags == ("1.*", "2.*", "*", "3.*")


def test_tags_of_other_platforms_get_theirs() -> None:
    listed = read(convert("a/b:8-aarch64", "a/b:8-ppc64le", "a/b:8-x86_64", "a/aarch64:8"))
    assert [str(entry.platforms[0]) for entry in listed.entries] == ["linux/arm64", "linux/ppc64le", "linux/amd64", "linux/amd64"]


# comments


def test_comments_become_titles_and_stay_comments_where_they_are_none() -> None:
    old = """\
# A list.

# Linux
# The usual ones.
debian
#old/image:1
ubuntu

busybox
#Yes
a/b:1

# Nothing of this
HTC/x

# About
# nothing

# http://example.org/: a title
c/d:1
# 'open
e/f:1
# The end
"""
    assert (
        importing.convert(old.encode(), "old.txt").text
        == """\
# A list.

version: 1

groups:
  - title: Linux
    images:
      # The usual ones.
      - debian
      # old/image:1
      - ubuntu
      - busybox

  - title: "Yes"
    images:
      - a/b:1

  # Nothing of this: none of its images were imported

  # About
  # nothing
  - title: "http://example.org/: a title"
    images:
      - c/d:1

  - title: "'open"
    images:
      - e/f:1

  # The end
"""
    )


def test_entries_without_a_comment_get_a_group_all_the_same() -> None:
    assert read(convert("a/b:1")).entries[0].group == "Images"


def test_a_title_that_is_too_long_or_unprintable_is_made_fit() -> None:
    imported = convert("# \x07" + "long " * 50, "a/b:1")
    (entry,) = read(imported).entries
    assert entry.group == ("long " * 50)[:200].strip()
    assert "long " * 49 + "long" in imported.text.splitlines()[3]


# files


def test_a_list_of_nothing_that_can_be_imported_is_refused_with_the_reasons() -> None:
    with pytest.raises(ListError) as refused:
        convert("# Some", "HTC/x")
    assert len(refused.value.problems) == 2


def test_a_file_that_is_not_utf8_is_refused_with_its_line() -> None:
    with pytest.raises(UsageError, match=r"old\.txt:2: byte 0xe9 is not UTF-8"):
        importing.convert(b"a/b:1\n# caf\xe9\n", "old.txt")


def test_a_file_that_is_larger_than_any_list_is_not_read() -> None:
    with pytest.raises(UsageError, match=f"more than {yamlfile.LARGEST} bytes"):
        importing.convert(b"#" * (yamlfile.LARGEST + 1), "old.txt")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        importing.load(tmp_path / "old.txt")


def test_a_list_is_written_once(tmp_path: Path) -> None:
    importing.save("version: 1\n", tmp_path / "images.yaml")
    with pytest.raises(UsageError, match="already exists and is not overwritten"):
        importing.save("version: 2\n", tmp_path / "images.yaml")
    assert (tmp_path / "images.yaml").read_text() == "version: 1\n"
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        importing.save("", tmp_path / "nowhere" / "images.yaml")


# properties


_PARTS = st.sampled_from(["a", "b", "x.y", "ghcr.io", "docker.io", "localhost:5000", "..", ".images", "A", "", "a*", "foo"])
_TAGS = st.sampled_from(
    ["", ":", ":1", ":1:2", ":*", ":1*", ":?", ":[1]*", ":[*", f"@sha256:{HEX}", f":1@sha256:{HEX}", ":latest", " # x"]
)
_LINES = st.builds("{}{}".format, st.lists(_PARTS, min_size=1, max_size=4).map("/".join), _TAGS) | st.sampled_from(
    ["", "# Title", "#"]
)


@pytest.mark.untraced
@settings(deadline=None)
@given(st.lists(_LINES, max_size=8))
def test_every_entry_keeps_name_and_source_or_is_told(lines: list[str]) -> None:
    try:
        imported = convert(*lines)
    except ListError as refused:
        kept, told = {}, refused.problems
    else:
        kept, told = sources(read(imported)), imported.problems
    told_lines = {int(line.split(":")[1]) for line in told}
    expected: dict[str, set[str]] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if line and not line.startswith("#"):
            name, registry = old_tool(line)
            assert kept.get(name) == registry or number in told_lines
            expected[name] = expected.get(name, set()) | {registry}
    assert all(registry in expected[name] for name, registry in kept.items())


@given(st.binary(max_size=200))
def test_arbitrary_bytes_do_no_more_than_be_refused(content: bytes) -> None:
    try:
        imported = importing.convert(content, "old.txt")
    except UsageError:
        return
    assert sources(read(imported))
