"""Plans under faults of a registry: a real docker-registry behind a faulty proxy."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

import pytest

from publisher.images.reader import expand, parse
from publisher.net.retry import RetryPolicy
from publisher.plan.make import make_plan
from publisher.plan.model import Action, Plan, UnlistedPattern
from publisher.publish.intake import Intake
from publisher.registry.blobs.store import BlobStore
from publisher.registry.client import RegistryClient
from publisher.registry.transport import RegistryTimeouts
from publisher.state.snapshot import Snapshot
from publisher.system.progress import LineDisplay
from tests.support.images.layers import file, tar
from tests.support.publisher.built_values import carried_out
from tests.support.registries.proxy import Proxy, misbehaving
from tests.support.registries.registry import RegistryServer, push_image
from tests.support.registries.scripted_http import hangs, says

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.registries.scripted_http import Reply

pytestmark = pytest.mark.system

NAME = "plans/image"
TAGS = ["1", "2", "3", "4"]
HEAD, LIST = "HEAD /v2/*/manifests/*", f"GET /v2/{NAME}/tags/list"
GONE = says(404, '{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', Docker_Distribution_Api_Version="registry/2.0")


class World:
    """A list of one tag pattern with all its images published, and the plans that are made afterwards."""

    def __init__(self, registry: RegistryServer, proxy: Proxy, where: Path) -> None:
        self._registry = registry
        self._proxy = proxy
        self._where = where
        self.timeouts = RegistryTimeouts()
        text = f"version: 1\ngroups: [{{title: Wild, images: ['{proxy.address}/{NAME}:*']}}]\n"
        (self.pattern,) = parse(text.encode(), "images.yaml").patterns
        empty = Snapshot("images.example.org")
        self.snapshot = carried_out(self.plan(empty), empty, 1)
        assert len(self.snapshot.records) == len(TAGS)

    def plan(self, snapshot: Snapshot | None = None) -> Plan:
        snapshot = self.snapshot if snapshot is None else snapshot
        insecure = frozenset({self._proxy.address})

        async def no_wait(_: float) -> None:
            await asyncio.sleep(0)

        def client() -> RegistryClient:
            return RegistryClient(insecure=insecure, retry=RetryPolicy(sleep=no_wait), timeouts=self.timeouts)

        store = lambda: BlobStore(self._where / "blobs")  # noqa: E731 - one line
        with Intake(client, store, LineDisplay(io.StringIO()), public=client) as intake:
            (tags,) = intake.tags([self.pattern])
            unlisted = [] if isinstance(tags, list) else [UnlistedPattern(str(self.pattern), self.pattern.covers, tags)]
            entries = expand(self.pattern, tags) if isinstance(tags, list) else ()
            return make_plan(
                entries, intake.resolve(entries, snapshot.records), snapshot, unlisted=unlisted, allow_mass_removal=True
            )

    def meets(self, fault: str) -> None:
        """Wait no longer than a moment for a registry that hangs; any other answer, however slow the machine, is awaited."""
        if fault == "a hang":
            self.timeouts = RegistryTimeouts(small=0.5, idle=0.2, listing=0.5)

    def push(self, tag: str, text: str) -> None:
        push_image(self._registry.address, NAME, tag, [tar([file("content", text.encode())])])


@pytest.fixture
def proxy(registry: RegistryServer) -> Iterator[Proxy]:
    for tag in TAGS:
        push_image(registry.address, NAME, tag, [tar([file("content", tag.encode())])])
    with misbehaving(registry) as proxy:
        yield proxy


@pytest.fixture
def world(registry: RegistryServer, proxy: Proxy, tmp_path: Path) -> World:
    return World(registry, proxy, tmp_path)


def test_without_a_fault_there_is_nothing_to_do(world: World) -> None:
    plan = world.plan()
    assert (plan.work, plan.removals, plan.unlisted) == ((), (), ())
    assert plan.count(Action.UNCHANGED) == len(TAGS)


FAULTS: dict[str, Callable[[Proxy], Reply]] = {
    "401 without end": lambda proxy: says(401, WWW_Authenticate=f'Bearer realm="http://{proxy.address}/token"'),
    "403": lambda _: says(403),
    "429 with Retry-After": lambda _: says(429, Retry_After="5"),
    "429 without": lambda _: says(429),
    "500": lambda _: says(500),
    "a hang": lambda _: hangs,
    "an ingress's own 404": lambda _: says(404, "<html>no such page</html>", Content_Type="text/html"),
    "half a body": lambda proxy: proxy.cut(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_a_head_changes_what_is_published(world: World, proxy: Proxy, fault: str) -> None:
    if fault == "half a body":
        proxy.always(HEAD, says(200))  # no digest: the manifest itself is asked for, and comes by halves
        proxy.always("GET /v2/*/manifests/*", FAULTS[fault](proxy))
    else:
        proxy.always(HEAD, FAULTS[fault](proxy))
        proxy.always("GET /v2/*/manifests/*", FAULTS[fault](proxy))
    world.meets(fault)
    plan = world.plan()
    assert (plan.work, plan.removals) == ((), ())
    assert plan.count(Action.FAILED) == len(TAGS)
    assert all(item.reason.endswith("the published version stays") for item in plan.items)


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_a_list_of_tags_takes_a_name_away(world: World, proxy: Proxy, fault: str) -> None:
    proxy.always(LIST, FAULTS[fault](proxy))
    world.meets(fault)
    plan = world.plan()
    assert (plan.work, plan.removals) == ((), ())
    assert [name for name, _ in plan.kept] == [f"{NAME}:{tag}" for tag in TAGS]
    assert len(plan.unlisted) == 1


@pytest.mark.parametrize("cut", ["500", "a hang", "half a body"])
def test_a_list_that_is_cut_between_its_pages_takes_no_name_away(world: World, proxy: Proxy, cut: str) -> None:
    proxy.always(LIST, proxy.pages(2, {1: FAULTS[cut](proxy)}))
    patient = world.timeouts
    world.meets(cut)
    plan = world.plan()
    assert plan.removals == ()
    assert len(plan.kept) == len(TAGS)
    proxy.always(LIST, proxy.pages(2))
    world.timeouts = patient
    assert world.plan().count(Action.UNCHANGED) == len(TAGS)


def test_only_an_explicit_404_makes_a_name_leave(world: World, proxy: Proxy) -> None:
    proxy.always(f"HEAD /v2/{NAME}/manifests/3", GONE)
    proxy.always(f"GET /v2/{NAME}/manifests/3", GONE)
    plan = world.plan()
    assert [removal.name for removal in plan.removals] == [f"{NAME}:3"]
    assert plan.items[TAGS[::-1].index("3")].action is Action.GONE


def test_a_digest_that_is_not_its_manifests_builds_nothing(world: World, proxy: Proxy) -> None:
    wrong = "sha256:" + "ab" * 32
    proxy.always(f"HEAD /v2/{NAME}/manifests/2", says(200, Docker_Content_Digest=wrong))
    proxy.always(f"GET /v2/{NAME}/manifests/{wrong}", proxy.changed(lambda body: body + b" "))
    plan = world.plan()
    assert (plan.work, plan.removals) == ((), ())
    assert plan.count(Action.FAILED) == 1


def test_a_tag_that_moved_is_the_only_work(world: World) -> None:
    world.push("2", "moved")
    plan = world.plan()
    assert [item.entry.name for item in plan.work] == [f"{NAME}:2"]
    assert "changed from" in plan.work[0].reason
