"""A builder that is opened for the first build: most runs of a publisher build nothing, and opening one starts programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.build.builder import Builder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from publisher.build.builder import BuildRequest
    from publisher.state.built import BuiltImage


class OnDemandBuilder(Builder):
    """A builder for a run that is not expected to build, and whose work directory has no builds.

    Args:
        open_builder: opens the builder that builds; the caller closes it.
    """

    def __init__(self, open_builder: Callable[[], Builder]) -> None:
        self._open_builder = open_builder
        self._builder: Builder | None = None

    def build(self, request: BuildRequest, progress: Callable[[str, int, int], None]) -> BuiltImage:
        """Build one image as :meth:`Builder.build` describes.

        Raises:
            PublisherError: also if the builder cannot be opened.
        """
        if self._builder is None:
            self._builder = self._open_builder()
        return self._builder.build(request, progress)

    def discard(self, request: BuildRequest) -> None:
        """Delete the finished build of a request, after it was published."""
        if self._builder is not None:
            self._builder.discard(request)

    def sweep(self, wanted: Collection[str], _unknown: Collection[str] = ()) -> None:
        """Do nothing: there are no builds."""
