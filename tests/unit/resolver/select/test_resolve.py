from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from publisher.contract.errors import ManifestError
from publisher.contract.manifest import CLOCK_ERROR, HARD_LIMIT, LIFETIME
from publisher.contract.records import BLOCKED, EXPIRING, SUPERSEDED, Version
from publisher.resolver.errors import (
    BlockedError,
    CacheError,
    FetchError,
    HostError,
    ResolverUsageError,
    SandboxError,
    UnsignedError,
)
from publisher.resolver.select import facts
from publisher.resolver.select.resolve import find_image
from publisher.resolver.system.notes import Warnings
from publisher.resolver.system.outage import OUTAGE_DURATION
from tests.support.ep.execution_point import NOW, REPOSITORY, ExecutionPoint, Key, digest, record, sif_content, sif_of, version

if TYPE_CHECKING:
    from tests.support.osdf.file_server import FileServer

pytestmark = pytest.mark.usefixtures("own_reads")

NAME = "htc/rocky:9"
CONTENT = sif_content(NAME)
DEAD = NOW + HARD_LIMIT + CLOCK_ERROR + 1


@pytest.fixture
def rocky(ep: ExecutionPoint) -> Version:
    """An image in both forms."""
    ep.store(CONTENT)
    ep.publish(record(NAME))
    return version(NAME)


def test_a_sandbox_is_handed_out_by_its_physical_path(ep: ExecutionPoint, rocky: Version) -> None:
    for form in ("auto", "sandbox"):
        answer = ep.resolve(f"/cvmfs/{REPOSITORY}/{NAME}", form=form)
        assert (answer.form, answer.path) == ("sandbox", f"{ep.repository}/{rocky.sandbox}")
    assert not (ep.cache / "sif").exists()


def test_a_sif_is_fetched_into_the_cache(ep: ExecutionPoint, rocky: Version) -> None:
    answer = ep.resolve(NAME, form="sif")
    assert rocky.sif is not None
    assert (answer.form, answer.path) == ("sif", f"{ep.cache}/sif/{rocky.sif.sha256[:2]}/{rocky.sif.sha256}.sif")
    with open(answer.path, "rb") as file:  # noqa: PTH123 - the resolver's paths are text
        assert file.read() == CONTENT
    assert ep.notes.all == []


def test_without_the_repository_all_comes_over_the_network(ep: ExecutionPoint, rocky: Version, web: FileServer) -> None:
    assert rocky.sandbox is not None
    answer = ep.resolve(NAME, repository=None, repository_name=REPOSITORY, origin=[web.url])
    assert (answer.form, answer.manifest.source, answer.sif_source) == ("sif", f"{web.url}/manifest", web.url)
    assert len(web.requests) == 3, "the index, one shard, the SIF"
    assert ep.resolve(NAME, repository=None, repository_name=REPOSITORY, origin=[web.url]).path == answer.path
    assert len(web.requests) == 3, "nothing is due"
    assert ep.notes.warnings == []


@pytest.mark.parametrize("sandbox", ["gone", "file", "fifo"])
def test_a_sandbox_that_does_not_open_is_replaced_by_the_sif(ep: ExecutionPoint, rocky: Version, sandbox: str) -> None:
    path = ep.repository / str(rocky.sandbox)
    (path / "bin").rmdir()
    path.rmdir()
    if sandbox == "file":
        path.write_text("")
    if sandbox == "fifo":
        os.mkfifo(path)
    assert ep.resolve(NAME).form == "sif"
    assert ep.notes.all[0].startswith(f"the sandbox {path} cannot be opened: ")
    assert ep.notes.warnings == []
    with pytest.raises(FetchError, match="cannot be opened"):
        ep.resolve(NAME, form="sandbox")


def test_what_is_to_be_had_in_no_form_is_said_with_both_reasons(ep: ExecutionPoint) -> None:
    ep.publish(record(NAME))
    (ep.repository / str(version(NAME).sandbox)).rename(ep.root / "away")
    with pytest.raises(
        FetchError,
        match=r"no form of the image \S+ is available: the sandbox .* cannot be opened.*; cannot fetch the SIF: .*No such file",
    ) as failure:
        ep.resolve(NAME)
    assert failure.value.exit_code == 4
    with pytest.raises(SandboxError, match=r"cannot be opened"):
        ep.resolve(NAME, cache=None)
    with pytest.raises(HostError, match="no cache is configured"):
        ep.resolve(NAME, form="sif", cache=None)


def test_a_form_that_is_not_published_is_said(ep: ExecutionPoint) -> None:
    ep.store(sif_content("b"))
    ep.publish(record("a:1", amd64=[version("a", sif=None)]), record("b:1", amd64=[version("b", sandbox=None)]))
    assert ep.resolve("a:1").form == "sandbox"
    assert ep.resolve("b:1").form == "sif"
    with pytest.raises(HostError, match="a:1 is not published as a SIF"):
        ep.resolve("a:1", form="sif")
    with pytest.raises(HostError, match="b:1 is not published as a sandbox"):
        ep.resolve("b:1", form="sandbox")


def test_a_moved_tag_leads_on_and_its_old_digest_stays(ep: ExecutionPoint) -> None:
    old, new = version("old", state=SUPERSEDED), version("new")
    ep.publish(record(NAME, amd64=[new, old]), serial=2)
    assert ep.resolve(NAME).path.endswith(str(new.sandbox))
    for text in (digest("old"), f"/cvmfs/{REPOSITORY}/{old.sandbox}"):
        answer = ep.resolve(text)
        assert answer.path.endswith(str(old.sandbox))
        assert answer.image is not None
        assert answer.image.version.state == "superseded"


def test_a_blocked_image_is_refused_though_both_forms_are_there(ep: ExecutionPoint, rocky: Version) -> None:
    assert ep.resolve(NAME, form="sif").path
    ep.publish(record(NAME, amd64=[version(NAME, state=BLOCKED, reason="malware")]), serial=2)
    for form in ("auto", "sandbox", "sif"):
        for text in (NAME, rocky.digest):
            with pytest.raises(BlockedError, match="malware"):
                ep.resolve(text, form=form)


def test_an_image_that_is_about_to_leave_is_said(ep: ExecutionPoint) -> None:
    ep.publish(record(NAME, amd64=[version(NAME, state=EXPIRING, until=NOW + 86400)]))
    assert ep.resolve(NAME).form == "sandbox"
    assert ep.notes.warnings == [f"the image {NAME} will be removed on 2025-06-16"]


def test_an_expired_manifest_still_serves(ep: ExecutionPoint, rocky: Version) -> None:
    answer = ep.resolve(NAME, now=NOW + LIFETIME + CLOCK_ERROR + 1, form="sif")
    assert rocky.sif is not None
    assert rocky.sif.sha256 in answer.path
    assert answer.to_json(ep.notes)["manifest_age"] == "expired"
    assert len(ep.notes.warnings) == 1


def test_with_a_dead_manifest_only_paths_that_are_there_pass(ep: ExecutionPoint, rocky: Version) -> None:
    link = ep.repository / NAME
    link.parent.mkdir(parents=True)
    link.symlink_to(f"../{rocky.sandbox}")
    for text in (f"/cvmfs/{REPOSITORY}/{NAME}", str(link), f"/cvmfs/{REPOSITORY}/{rocky.sandbox}"):
        answer = ep.resolve(text, now=DEAD)
        assert (answer.form, answer.path) == ("sandbox", f"{ep.repository}/{rocky.sandbox}")
        assert answer.to_json(ep.notes)["digest"] is None
        assert ep.notes.warnings
    for text in (NAME, rocky.digest, f"docker://hub.example.org/{NAME}", f"/cvmfs/{REPOSITORY}/htc/rocky:8"):
        with pytest.raises(ManifestError, match="too old"):
            ep.resolve(text, now=DEAD)
    with pytest.raises(ManifestError, match="too old"):
        ep.resolve(str(link), now=DEAD, form="sif")


def test_nothing_passes_where_no_manifest_is_trusted(ep: ExecutionPoint, rocky: Version) -> None:
    ep.publish(record(NAME), serial=2, key=Key())
    with pytest.raises(ManifestError, match="no manifest can be used"):
        ep.resolve(f"/cvmfs/{REPOSITORY}/{rocky.sandbox}")


def test_everything_works_from_the_last_good_copies(ep: ExecutionPoint, rocky: Version) -> None:
    path = ep.resolve(NAME, form="sif").path
    assert rocky.sif is not None
    ep.repository.rename(ep.root / "away")
    ep.origin.rename(ep.root / "away too")
    answer = ep.resolve(NAME)
    assert (answer.path, answer.manifest.source) == (path, "the cached copy")


def test_a_cache_that_cannot_be_used_does_not_withhold_a_sandbox(ep: ExecutionPoint, rocky: Version) -> None:
    assert rocky.sandbox
    ep.cache.mkdir()
    ep.cache.chmod(0o777)
    assert ep.resolve(NAME).form == "sandbox"
    assert len(ep.notes.warnings) == 1
    assert "other users may write" in ep.notes.warnings[0]
    with pytest.raises(CacheError, match="other users may write"):
        ep.resolve(NAME, form="sif")


def test_without_trusted_keys_nothing_is_answered(ep: ExecutionPoint, rocky: Version) -> None:
    assert rocky.sandbox
    with pytest.raises(ResolverUsageError, match="no trusted key"):
        ep.resolve(NAME, public_key=[])


def test_the_answer_for_programs_has_what_it_rests_on(ep: ExecutionPoint, rocky: Version) -> None:
    answer = ep.resolve(f"docker://hub.example.org/{NAME}", form="sif")
    value = json.loads(json.dumps(answer.to_json(ep.notes)))
    sif = sif_of(CONTENT)
    assert value == {
        "name": NAME,
        "form": "sif",
        "path": answer.path,
        "arch": "amd64",
        "variant": None,
        "digest": rocky.digest,
        "config": None,
        "sif": {"sha256": sif.sha256, "size": sif.size},
        "state": "current",
        "since": rocky.since,
        "until": None,
        "published": rocky.published,
        "signed": None,
        "attached": None,
        "sif_source": str(ep.origin),
        "bytes": sif.size,
        "copied": 0,
        "why": "it was requested",
        "manifest_source": f"{ep.repository}/.publisher",
        "serial": 1,
        "manifest_age": "fresh",
        "fork": None,
        "notes": [],
    }
    again = ep.resolve(NAME, form="sif").to_json(ep.notes)
    assert again["sif_source"] is None


def test_provenance_is_part_of_the_answer_for_programs(ep: ExecutionPoint) -> None:
    attached = [{"digest": digest("signature"), "kind": "signature", "type": "cosign tag .sig"}]
    ep.publish(record(NAME, amd64=[version(NAME, signed={"key": "ab"}, attached=attached)]))
    value = json.loads(json.dumps(ep.resolve(NAME).to_json(ep.notes)))
    assert (value["signed"], value["attached"]) == ({"key": "ab"}, attached)


def test_a_host_may_refuse_images_without_a_verified_signature(ep: ExecutionPoint, rocky: Version) -> None:
    signed = version("signed", signed={"identity": "release@example.org", "issuer": "https://login.example.org"})
    ep.publish(record(NAME), record("htc/signed:1", amd64=[signed]))
    ep.store(CONTENT)
    assert ep.resolve("htc/signed:1", unsigned="refuse").form == "sandbox"
    for form in ("sandbox", "sif"):
        with pytest.raises(UnsignedError, match=f"no signature of the image {NAME} was verified"):
            ep.resolve(NAME, unsigned="refuse", form=form)
    assert not (ep.cache / "sif").exists(), "nothing is fetched for an image that is refused"
    with pytest.raises(UnsignedError, match="too old to say who signed"):
        ep.resolve(f"/cvmfs/{REPOSITORY}/{rocky.sandbox}", now=DEAD, unsigned="refuse")


def test_a_repository_that_hung_is_not_asked_for_the_manifest_where_another_place_is(ep: ExecutionPoint, rocky: Version) -> None:
    assert rocky.sandbox

    def asked(*, hung: bool, **changed: str | list[str] | None) -> str:
        return find_image(NAME, ep.settings(**changed), NOW, Warnings(), directory=None, hung=hung)[1].source

    assert asked(hung=False) == f"{ep.repository}/.publisher"
    assert asked(hung=True) == f"{ep.origin}/manifest"
    assert asked(hung=True, origin=None) == f"{ep.repository}/.publisher", "there is no other"


def test_a_repository_that_hung_over_the_manifest_is_looked_at_again_after_a_while(ep: ExecutionPoint, rocky: Version) -> None:
    assert rocky.sif is not None
    assert ep.resolve(NAME, form="sif").manifest.source == f"{ep.repository}/.publisher"
    memory = ep.cache / "failures" / "manifest-hangs"
    memory.parent.mkdir(exist_ok=True)
    memory.touch()
    assert ep.resolve(NAME, form="sif").manifest.source == f"{ep.origin}/manifest"
    assert ep.resolve(NAME, form="sif", origin=None).manifest.source == "the cached copy"
    os.utime(memory, (time.time() - OUTAGE_DURATION - 1,) * 2)
    assert ep.resolve(NAME, form="sif").manifest.source == f"{ep.repository}/.publisher"
    assert not memory.exists()


def test_a_repository_that_was_measured_to_hang_is_not_asked_for_the_manifest(ep: ExecutionPoint, rocky: Version) -> None:
    assert rocky.sif is not None
    facts.write(str(ep.cache / "facts.json"), {"cvmfs": False}, NOW)
    assert ep.resolve(NAME).manifest.source == f"{ep.origin}/manifest"
    facts.write(str(ep.cache / "facts.json"), {"cvmfs": True}, NOW)
    assert ep.resolve(NAME).manifest.source == f"{ep.repository}/.publisher"
