from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.machine.huge_pages import use_huge_pages

if TYPE_CHECKING:
    from collections.abc import Iterator


LONGEST_FIRST = (
    "tests/system/pool/",
    "tests/system/osdf/test_kill_pelican.py",
    "tests/system/build/test_large.py",
    "tests/system/build/test_builder.py",
    "tests/system/build/test_hostile.py",
    "tests/system/release/test_packages.py",
    "tests/system/publish/test_kill_sync.py",
    "tests/system/faults/",
    "tests/system/cvmfs/test_kill_",
    "tests/system/publish/test_adopt.py",
    "tests/system/publish/test_gc.py",
    "tests/system/ep/test_unpacking.py",
    "tests/attacks/test_",
    "tests/contract/test_",
)
"""Beginnings of the names of tests that take long: they start first, so that at the end no process waits for another one's."""
POOLS = (
    ("citation", "failures", "jobs", "ospool", "variants"),
    ("access_point", "broken_cvmfs", "differences", "trust", "unprivileged"),
    ("many", "pilot", "without_fuse"),
)
"""The pool's tests that share an HTCondor pool each; those processes wait for HTCondor most of the time."""

# Nothing is written into the checkout, and speed is what ci/bench measures
settings.register_profile("here", database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")
settings.register_profile("other-python", settings.get_profile("here"), max_examples=25)  # ci/test-python


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep the tests of a file in one process of pytest-xdist, and those that share an HTCondor pool in one as well."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - this hook is called by pytest-xdist alone

    class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            name = file.removeprefix("tests/system/pool/test_pool_").removesuffix(".py")
            return next((f"pool of {names[0]}" for names in POOLS if name in names), file)

    config.option.loadscopereorder = False  # it would begin with the files of most tests; see LONGEST_FIRST
    return FileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of LONGEST_FIRST first, in its order."""
    ranks = [*LONGEST_FIRST, ""]
    items.sort(key=lambda item: next(number for number, begin in enumerate(ranks) if item.nodeid.startswith(begin)))


def pytest_collection_finish() -> None:
    """Make forks cheap: all modules of the tests are loaded now."""
    use_huge_pages()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Run the tests that are marked ``untraced`` without coverage."""
    tracer = sys.gettrace()
    if item.get_closest_marker("untraced") is not None:
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Restore the log's handlers and levels after each test: they belong to the whole process, and the command line sets them."""
    loggers = [logging.getLogger(), logging.getLogger("publisher")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers = handlers


@pytest.fixture
def shared_path() -> Iterator[Path]:
    """A temporary directory that other users may enter, unlike pytest's ``tmp_path``."""
    with tempfile.TemporaryDirectory(prefix="publisher-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
