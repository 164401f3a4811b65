from __future__ import annotations

from typing import TYPE_CHECKING, cast

from publisher.build.builder import Builder
from publisher.build.on_demand import OnDemandBuilder
from tests.support.publisher.built_values import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from publisher.build.builder import BuildRequest
    from publisher.state.built import BuiltImage

REQUESTS = [cast("BuildRequest", f"request {number}") for number in range(2)]


class Recording(Builder):
    def __init__(self) -> None:
        self.asked: list[object] = []

    def build(self, request: BuildRequest, progress: Callable[[str, int, int], None]) -> BuiltImage:
        progress("plan", 0, 1)
        self.asked.append(("build", request))
        return cast("BuiltImage", f"build of {request}")

    def discard(self, request: BuildRequest) -> None:
        self.asked.append(("discard", request))

    def sweep(self, wanted: Collection[str], _unknown: Collection[str] = ()) -> None:
        raise AssertionError(wanted)


def test_a_builder_is_opened_once_and_only_for_a_build() -> None:
    opened: list[Recording] = []
    steps: list[str] = []

    def open_builder() -> Recording:
        opened.append(Recording())
        return opened[-1]

    builder = OnDemandBuilder(open_builder)
    builder.sweep({digest("one")})
    builder.discard(REQUESTS[0])
    assert opened == []
    built = [builder.build(request, lambda step, *_: steps.append(step)) for request in REQUESTS]
    builder.discard(REQUESTS[1])
    assert [str(one) for one in built] == ["build of request 0", "build of request 1"]
    assert steps == ["plan", "plan"]
    assert [one.asked for one in opened] == [[("build", REQUESTS[0]), ("build", REQUESTS[1]), ("discard", REQUESTS[1])]]
