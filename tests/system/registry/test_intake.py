"""Resolution of references at a real registry."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from typing import TYPE_CHECKING

import pytest

from publisher.errors import DeniedError, NotFoundError, UnavailableError, UnsupportedError
from publisher.images.reader import expand, parse
from publisher.oci import Platform
from publisher.plan.make import make_plan
from publisher.plan.model import ResolvedReference
from publisher.provenance.lookup import Provenance
from publisher.publish.intake import Intake
from publisher.registry.blobs.store import BlobStore
from publisher.registry.client import RegistryClient
from publisher.registry.credentials import Credentials, anonymous
from publisher.state.snapshot import Snapshot
from publisher.system.progress import LineDisplay
from tests.support.images.layers import file, tar
from tests.support.publisher.built_values import AMD64, ARM64, carried_out, entry
from tests.support.registries.registry import RegistryServer, free_port, push_image, push_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from publisher.images.reader import Entry

pytestmark = pytest.mark.system
EMPTY = Snapshot("images.example.org")


@contextlib.contextmanager
def opened(
    address: str, where: Path, credentials: Callable[[str], Credentials | None] = anonymous, *, private_images: bool = False
) -> Iterator[Intake]:
    insecure = frozenset({address})
    with Intake(
        lambda: RegistryClient(insecure=insecure, credentials=credentials),
        lambda: BlobStore(where / "blobs"),
        LineDisplay(io.StringIO()),
        public=lambda: RegistryClient(insecure=insecure),
        private_images=private_images,
    ) as intake:
        yield intake


@pytest.fixture
def intake(registry: RegistryServer, tmp_path: Path) -> Iterator[Intake]:
    with opened(registry.address, tmp_path) as intake:
        yield intake


def push(registry: RegistryServer, repository: str, tag: str, text: str, platform: str = "linux/amd64") -> str:
    return push_image(registry.address, repository, tag, [tar([file("content", text.encode())])], platform=platform)


def wanted(registry: RegistryServer, name: str, *platforms: Platform) -> Entry:
    return entry(f"{registry.address}/{name}", platforms or (AMD64,))


def without_configs(answers: Mapping[str, object]) -> dict[str, object]:
    return {name: dataclasses.replace(answer, configs={}) for name, answer in answers.items()}  # type: ignore[type-var]


def test_one_manifest_is_of_the_platform_that_its_config_says(intake: Intake, registry: RegistryServer) -> None:
    amd64, arm64 = push(registry, "ask/one", "1", "amd"), push(registry, "ask/one", "arm", "arm", "linux/arm64")
    here, there = wanted(registry, "ask/one:1"), wanted(registry, "ask/one:arm", ARM64)
    assert without_configs(intake.resolve([here, there], {})) == {
        here.name: ResolvedReference(amd64, {AMD64: amd64}, ("linux/amd64",), {AMD64: Provenance()}),
        there.name: ResolvedReference(arm64, {ARM64: arm64}, ("linux/arm64",), {ARM64: Provenance()}),
    }
    answers = intake.resolve([wanted(registry, "ask/one:arm")], {})
    assert isinstance(answers["ask/one:arm"], UnsupportedError)


def test_an_index_gives_each_platform_its_own_manifest(intake: Intake, registry: RegistryServer) -> None:
    digests = {str(one): push(registry, "ask/multi", "", str(one), str(one)) for one in (AMD64, ARM64)}
    index = push_index(registry.address, "ask/multi", "1", digests, attested=True)
    one = wanted(registry, "ask/multi:1", AMD64, ARM64, Platform("linux", "s390x"))
    manifests = {AMD64: digests["linux/amd64"], ARM64: digests["linux/arm64"]}
    provenance = {AMD64: Provenance(), ARM64: Provenance()}
    expected = ResolvedReference(index, manifests, ("linux/amd64", "linux/arm64"), provenance)
    found = intake.resolve([one], {})
    assert without_configs(found) == {one.name: expected}
    answer = found[one.name]
    assert isinstance(answer, ResolvedReference)
    assert len({answer.digest, *answer.digests.values(), *answer.configs.values()}) == 5


def test_what_is_published_costs_one_head(intake: Intake, registry: RegistryServer) -> None:
    push(registry, "ask/known", "1", "known")
    known = wanted(registry, "ask/known:1")
    plan = make_plan([known], intake.resolve([known], {}), EMPTY)
    snapshot = carried_out(plan, EMPTY, 1)
    registry.requests()
    assert not make_plan([known], intake.resolve([known], snapshot.records), snapshot).work
    assert [(request.method, request.path) for request in registry.requests()] == [("HEAD", "/v2/ask/known/manifests/1")]


def test_a_pinned_digest_is_not_asked_for_at_all(intake: Intake, registry: RegistryServer) -> None:
    digest = push(registry, "ask/pinned", "1", "pinned")
    pinned = wanted(registry, f"ask/pinned:1@{digest}")
    snapshot = carried_out(make_plan([pinned], intake.resolve([pinned], {}), EMPTY), EMPTY, 1)
    push(registry, "ask/pinned", "1", "the tag moves on")
    registry.requests()
    assert not make_plan([pinned], intake.resolve([pinned], snapshot.records), snapshot).work
    assert registry.requests() == []


def test_what_was_planned_is_what_is_fetched_whatever_the_tag_does_meanwhile(intake: Intake, registry: RegistryServer) -> None:
    before = push(registry, "ask/moving", "1", "before")
    moving = wanted(registry, "ask/moving:1")
    (item,) = make_plan([moving], intake.resolve([moving], {}), EMPTY).items
    push(registry, "ask/moving", "1", "after")
    (request,) = intake.fetch(item).result(60)
    assert request.image.manifest.digest == before
    assert all(path.is_file() for path in (*request.layers, *request.indexes))


def test_a_builder_elsewhere_gets_the_image_without_its_layers(intake: Intake, registry: RegistryServer) -> None:
    digest = push(registry, "ask/elsewhere", "1", "elsewhere")
    one = wanted(registry, "ask/elsewhere:1")
    (item,) = make_plan([one], intake.resolve([one], {}), EMPTY).items
    (request,) = intake.fetch(item, layers=False).result(60)
    assert (request.image.manifest.digest, request.layers, request.indexes) == (digest, (), ())
    assert not any(intake.store._path(layer.digest).exists() for layer in request.image.manifest.layers), (
        "nothing is fetched that is not needed"
    )
    here = intake.with_layers(request)
    assert here.image == request.image
    assert all(path.is_file() for path in (*here.layers, *here.indexes))


def test_only_what_must_be_built_is_fetched(intake: Intake, registry: RegistryServer) -> None:
    digests = {str(one): push(registry, "ask/some", "", str(one), str(one)) for one in (AMD64, ARM64)}
    push_index(registry.address, "ask/some", "1", digests)
    amd64 = wanted(registry, "ask/some:1")
    snapshot = carried_out(make_plan([amd64], intake.resolve([amd64], {}), EMPTY), EMPTY, 1)
    both = wanted(registry, "ask/some:1", AMD64, ARM64)
    (item,) = make_plan([both], intake.resolve([both], snapshot.records), snapshot).items
    assert [request.image.manifest.digest for request in intake.fetch(item).result(60)] == [digests["linux/arm64"]]


def test_gone_and_down_are_told_apart_and_stop_nobody(intake: Intake, registry: RegistryServer) -> None:
    push(registry, "ask/there", "1", "there")
    down = entry(f"127.0.0.1:{free_port()}/ask/down:1")
    answers = intake.resolve([wanted(registry, "ask/gone:1"), down, wanted(registry, "ask/there:1")], {})
    assert isinstance(answers["ask/gone:1"], NotFoundError)
    assert isinstance(answers["ask/down:1"], UnavailableError)
    assert isinstance(answers["ask/there:1"], ResolvedReference)


USER = ("publisher", "open sesame")


@pytest.mark.parametrize("entry_says", [False, True])
@pytest.mark.parametrize("operator_says", [False, True])
def test_a_private_image_is_published_only_if_list_and_operator_agree(
    tmp_path: Path, entry_says: bool, operator_says: bool
) -> None:
    with RegistryServer(tmp_path / "registry", USER) as closed:
        layer = tar([file("content", b"secret")])
        digest = push_image(closed.address, "ask/private", "1", [layer], user=USER)
        one = dataclasses.replace(wanted(closed, "ask/private:1"), private=entry_says)
        with opened(closed.address, tmp_path, lambda _: Credentials(*USER), private_images=operator_says) as intake:
            answers = intake.resolve([one], {})
            answer = answers[one.name]
            if entry_says and operator_says:
                assert without_configs(answers)[one.name] == ResolvedReference(
                    digest, {AMD64: digest}, ("linux/amd64",), {AMD64: Provenance()}
                )
            else:
                assert isinstance(answer, DeniedError)
                assert "cannot be pulled anonymously" in answer.reason
                assert USER[1] not in str(answer)


def test_looking_at_images_asks_as_everybody_would(tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "registry", USER) as closed:
        push_image(closed.address, "ask/private", "1", [tar([file("content", b"secret")])], user=USER)
        one = wanted(closed, "ask/private:1")
        with opened(closed.address, tmp_path, lambda _: Credentials(*USER)) as intake:
            assert isinstance(intake.inspect([one])[one.name], DeniedError)


def test_looking_at_an_image_fetches_no_layer(intake: Intake, registry: RegistryServer) -> None:
    push(registry, "ask/looked-at", "1", "some content")
    one = wanted(registry, "ask/looked-at:1")
    registry.requests()
    (image,) = intake.inspect([one])[one.name]  # type: ignore[misc]  # it is there
    assert str(image.platform) == "linux/amd64"
    assert image.manifest.layers[0].digest not in " ".join(request.path for request in registry.requests())


def test_wildcards_get_the_tags_that_there_are_and_each_repository_is_asked_once(
    intake: Intake, registry: RegistryServer
) -> None:
    for tag in ("1.0", "1.1", "2.0"):
        push(registry, "ask/wild", tag, tag)
    listed = parse(
        f"version: 1\ngroups: [{{title: Wild, images: ['{registry.address}/ask/wild:1.*', "
        f"'{registry.address}/ask/wild:2.*', '{registry.address}/ask/none:*']}}]\n".encode(),
        "images.yaml",
    )
    registry.requests()
    ones, twos, none = intake.tags(listed.patterns)
    assert isinstance(ones, list)
    assert isinstance(twos, list)
    assert [entry.name for entry in expand(listed.patterns[0], ones)] == ["ask/wild:1.1", "ask/wild:1.0"]
    assert [entry.name for entry in expand(listed.patterns[1], twos)] == ["ask/wild:2.0"]
    assert isinstance(none, NotFoundError)
    asked = [request.path.partition("?")[0] for request in registry.requests() if "tags/list" in request.path]
    assert sorted(asked).count("/v2/ask/wild/tags/list") == 1
