from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract import manifest
from publisher.contract.errors import ManifestError
from publisher.contract.manifest import (
    CLOCK_ERROR,
    DEAD,
    EXPIRED,
    FRESH,
    HARD_LIMIT,
    LIFETIME,
    Index,
    Shard,
)
from publisher.contract.records import BLOCKED, EXPIRING, SUPERSEDED, Chunks, Record, Sif, Version
from tests.support.ep.execution_point import digest, record, version

SHA256 = "ab" * 32
INDEX = Index("images.example.org", serial=7, generated=1000, expires=2000, sif_prefix="sif", shards=[SHA256, None])
FULL = Version(
    digest("full"),
    sandbox=".images/ab/cdef",
    sif=Sif("sif/ab/abc.sif", SHA256, 123, Chunks("cd" * 32, 45)),
    published=10,
    unpacked_size=456,
    files=7,
    test="ran",
    tools={"mksquashfs": "4.5.1"},
    notes={"devices": 2},
    state=EXPIRING,
    since=20,
    until=30,
    reason="asked for",
)
FULL_RECORD = Record("htc/rocky:9", "hub.example.org/htc/rocky:9", digest("index"), {"amd64": [FULL], "arm/v7": [version("old")]})
ANY_JSON: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.just([])
    | st.just({})
)


def as_json(payload: bytes) -> dict[str, Any]:
    value = json.loads(payload)
    assert isinstance(value, dict)
    return value


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key, below in inner for found in leaves(below, (*path, key))]


def with_leaf(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    changed = json.loads(json.dumps(value))
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = leaf
    return changed


def test_an_index_is_read_as_it_was_written() -> None:
    read = Index.parse(INDEX.payload(), "images.example.org")
    assert all(getattr(read, name) == getattr(INDEX, name) for name in Index.__slots__)
    assert Index.parse(INDEX.payload()).repository == "images.example.org"


def test_a_record_is_read_as_it_was_written() -> None:
    read = Record.from_json("htc/rocky:9", json.loads(manifest.canonical(FULL_RECORD.to_json())))
    assert read.to_json() == FULL_RECORD.to_json()
    (platform, found), _ = read.versions()
    assert platform == "amd64"
    assert found.sif is not None
    assert (found.sif.path, found.sif.sha256, found.sif.size) == ("sif/ab/abc.sif", SHA256, 123)
    assert found.sif.chunks is not None
    assert (found.sif.chunks.path, found.sif.chunks.size) == (f"sif/cd/{'cd' * 32}.chunks", 45)
    assert (found.until, found.since, found.reason, found.notes) == (30, 20, "asked for", {"devices": 2})


@pytest.mark.parametrize("expires", [10**30, INDEX.generated + HARD_LIMIT + 1, INDEX.generated - 1])
def test_an_index_does_not_decide_how_long_it_is_valid(expires: int) -> None:
    with pytest.raises(ManifestError, match=r"expires|whole number"):
        Index.parse(manifest.canonical({**as_json(INDEX.payload()), "expires": expires}))
    latest = {**as_json(INDEX.payload()), "expires": INDEX.generated + HARD_LIMIT}
    assert Index.parse(manifest.canonical(latest)).expires == INDEX.generated + HARD_LIMIT


def test_the_spelling_of_an_index_is_fixed() -> None:
    """Signatures and the names of shards hang on it."""
    assert INDEX.payload() == (
        b'{"expires":2000,"generated":1000,"repository":"images.example.org","schema":1,"serial":7,"shards":["'
        + SHA256.encode()
        + b'",null],"sif_prefix":"sif","type":"container-image-manifest"}'
    )


def test_the_shard_of_a_key_is_fixed() -> None:
    assert manifest.shard_number("htc/rocky:9", 256) == 205
    assert {INDEX.shard_for(key) for key in "abcdefgh"} == {SHA256, None}
    assert manifest.shard_name(SHA256) == f"shards/{SHA256}.json"


def test_an_envelope_gives_back_payload_and_signatures() -> None:
    signatures = {"b" * 64: bytes(range(72)), "a" * 64: b""}
    payload, found = manifest.unseal(manifest.seal(b'{"a":"\\u00e9"}', signatures))
    assert payload == b'{"a":"\\u00e9"}'
    assert dict(found) == signatures


def test_unknown_fields_are_ignored() -> None:
    index = {**as_json(INDEX.payload()), "news": [1]}
    assert Index.parse(manifest.canonical(index)).serial == 7
    value = {**FULL_RECORD.to_json(), "news": 1}
    assert Record.from_json("htc/rocky:9", value).to_json() == FULL_RECORD.to_json()
    content = manifest.canonical({"schema": 1, "records": {}, "aliases": {}, "news": 1})
    assert Shard.parse(content, hashlib.sha256(content).hexdigest()).records == {}


def test_an_unknown_schema_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"schema 2.*install a newer resolver"):
        Index.parse(manifest.canonical({**as_json(INDEX.payload()), "schema": 2}))
    content = manifest.canonical({"schema": 2, "records": {}, "aliases": {}})
    with pytest.raises(ManifestError, match="schema 2"):
        Shard.parse(content, hashlib.sha256(content).hexdigest())


def test_another_signed_thing_is_no_index() -> None:
    """A key may sign more than manifests."""
    for other in (b"{}", b"[]", manifest.canonical({**as_json(INDEX.payload()), "type": "report"})):
        with pytest.raises(ManifestError, match="the signed file is not a manifest index"):
            Index.parse(other)


def test_another_repositorys_index_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"of the repository 'images\.example\.org', not of 'other'"):
        Index.parse(INDEX.payload(), "other")


def test_an_index_without_shards_is_refused() -> None:
    with pytest.raises(ManifestError, match="no shards"):
        Index.parse(manifest.canonical({**as_json(INDEX.payload()), "shards": []}))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "a//b", "a/./b", "a/", "", ".", "a\0b", "a\nb", 7])
def test_a_path_that_could_leave_the_root_is_refused(path: object) -> None:
    value = FULL_RECORD.to_json()
    for at in (("platforms", "amd64", 0, "sandbox"), ("platforms", "amd64", 0, "sif", "path")):
        with pytest.raises(ManifestError, match="is not a safe relative path"):
            Record.from_json("htc/rocky:9", with_leaf(value, at, path))
    with pytest.raises(ManifestError):
        Index.parse(manifest.canonical({**as_json(INDEX.payload()), "sif_prefix": path}))
    if isinstance(path, str):
        with pytest.raises(ManifestError):
            Record.from_json(path, value)


@given(st.data())
def test_whatever_stands_in_a_record_it_is_one_or_is_refused(data: st.DataObject) -> None:
    value = FULL_RECORD.to_json()
    at = data.draw(st.sampled_from(leaves(value)))
    try:
        read = Record.from_json("htc/rocky:9", with_leaf(value, at, data.draw(ANY_JSON)))
    except ManifestError:
        return
    assert Record.from_json("htc/rocky:9", json.loads(manifest.canonical(read.to_json()))).to_json() == read.to_json()
    assert all(isinstance(alias, str) for alias in read.aliases())


@given(st.data())
def test_whatever_stands_in_an_index_it_is_one_or_is_refused(data: st.DataObject) -> None:
    value = as_json(INDEX.payload())
    at = data.draw(st.sampled_from(leaves(value)))
    try:
        read = Index.parse(manifest.canonical(with_leaf(value, at, data.draw(ANY_JSON))))
    except ManifestError:
        return
    assert Index.parse(read.payload()).payload() == read.payload()
    read.age(0)


@given(st.binary())
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(ManifestError):
        Index.parse(noise)
    with pytest.raises(ManifestError):
        manifest.unseal(noise)
    with pytest.raises(ManifestError):
        Shard.parse(noise, hashlib.sha256(noise).hexdigest())


def test_a_deep_nest_is_refused() -> None:
    with pytest.raises(ManifestError, match="not JSON"):
        manifest.unseal(b"[" * 100_000)


def test_oversized_files_are_refused() -> None:
    with pytest.raises(ManifestError, match="the limit is 4194304"):
        manifest.unseal(b" " * (manifest.MAX_INDEX_BYTES + 1))
    with pytest.raises(ManifestError, match="the limit is 67108864"):
        Shard.parse(b" " * (manifest.MAX_SHARD_BYTES + 1), SHA256)


def test_a_swapped_shard_is_refused() -> None:
    first, second = (manifest.make_shard({}, {"key": name}) for name in "ab")
    assert Shard.parse(first, hashlib.sha256(first).hexdigest()).aliases == {"key": "a"}
    with pytest.raises(ManifestError, match="does not match its sha256 in the index"):
        Shard.parse(second, hashlib.sha256(first).hexdigest())


def test_a_shard_has_the_records_it_names() -> None:
    content = manifest.make_shard({"htc/rocky:9": FULL_RECORD.to_json(), "bad": {}}, {})
    shard = Shard.parse(content, hashlib.sha256(content).hexdigest())
    found = shard.record("htc/rocky:9")
    assert found is not None
    assert found.reference == "hub.example.org/htc/rocky:9"
    assert shard.record("htc/rocky:8") is None
    with pytest.raises(ManifestError, match="record of 'bad' is not valid"):
        shard.record("bad")


def test_a_clock_may_be_an_hour_off_before_an_index_is_expired_or_dead() -> None:
    index = Index("r", serial=1, generated=0, expires=LIFETIME, sif_prefix="sif", shards=[None])
    ages = {
        -CLOCK_ERROR: FRESH,
        -CLOCK_ERROR - 1: EXPIRED,
        -HARD_LIMIT: EXPIRED,
        -HARD_LIMIT - 1: DEAD,
        LIFETIME + CLOCK_ERROR: FRESH,
        LIFETIME + CLOCK_ERROR + 1: EXPIRED,
        HARD_LIMIT + CLOCK_ERROR: EXPIRED,
        HARD_LIMIT + CLOCK_ERROR + 1: DEAD,
    }
    assert {now: index.age(now) for now in ages} == ages


def test_a_name_means_its_first_version_unless_that_has_only_a_past() -> None:
    old, new = version("old", state=SUPERSEDED), version("new")
    assert record("n:1", amd64=[new, old]).current("amd64") is new
    assert record("n:1", amd64=[old]).current("amd64") is None
    assert record("n:1", amd64=[new]).current("arm64") is None
    blocked = version("blocked", state=BLOCKED)
    assert record("n:1", amd64=[blocked, old]).current("amd64") is blocked


def test_every_digest_and_place_of_an_image_leads_to_it() -> None:
    bare = Version(digest("bare"), sandbox=None, sif=None, published=1)
    assert set(Record("n:1", "hub.example.org/n:1", digest("index"), {"amd64": [FULL, bare]}).aliases()) == {
        "docker://hub.example.org/n:1",
        digest("index"),
        digest("full"),
        ".images/ab/cdef",
        f"sha256:{SHA256}",
        digest("bare"),
    }


@pytest.mark.parametrize("predecessors", [{"9" * 5000: SHA256}, {"1" * 20: SHA256}, [SHA256]])
def test_predecessors_that_no_publisher_writes_are_refused(predecessors: object) -> None:
    payload = json.loads(INDEX.payload()) | {"predecessors": predecessors}
    with pytest.raises(ManifestError, match="its predecessors are not an object whose keys are serials"):
        Index.parse(json.dumps(payload).encode())


LOOKED_UP = "htc/rocky:9"
SHARD = manifest.make_shard({LOOKED_UP: FULL_RECORD.to_json(), "a/htc/rocky:9": {}, "z:1": {}}, {"docker://x": LOOKED_UP})


def found_in(content: bytes, name: str = LOOKED_UP) -> Record | None:
    value = manifest.find_record(content, hashlib.sha256(content).hexdigest(), name)
    return None if value is None else Record.from_json(name, value)


def test_a_record_is_found_without_reading_the_others() -> None:
    found = found_in(SHARD)
    assert found is not None
    assert found.to_json() == FULL_RECORD.to_json()


@pytest.mark.parametrize(
    "content",
    [
        manifest.make_shard({"a:1": {}}, {LOOKED_UP: "a:1"}),
        manifest.make_shard({f'x"{LOOKED_UP}': FULL_RECORD.to_json()}, {}),
        manifest.make_shard({"a:1": {"reference": f'"{LOOKED_UP}":{{"platforms":{{}}}}'}}, {}),
        manifest.make_shard({LOOKED_UP: {"no": "record"}}, {}),
        SHARD.replace(b'"schema":1', b'"schema":2'),
        SHARD.replace(b":{", b": {"),
        SHARD[: SHARD.index(b'"platforms"')] + b'},"schema":1}',
        b"",
    ],
    ids=["an alias", "a longer key", "text", "no record", "another schema", "other blanks", "cut", "empty"],
)
def test_whatever_is_not_plainly_the_record_is_left_to_the_whole_shard(content: bytes) -> None:
    assert found_in(content) is None


def test_a_record_is_found_only_in_a_shard_that_the_index_names() -> None:
    assert manifest.find_record(SHARD, SHA256, LOOKED_UP) is None
    for name in ("rocky:9", "rocky", 'a"b:1', "z:1"):
        assert found_in(SHARD, name) is None


def test_a_wrong_record_is_refused_wherever_it_is_read() -> None:
    with pytest.raises(ManifestError, match="record of 'a:1' is not valid"):
        found_in(manifest.make_shard({"a:1": {"platforms": 1}}, {}), "a:1")
