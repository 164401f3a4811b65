from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator


POOL_TESTS = "tests/system/pool/"

# Nothing is written into the checkout, and speed is what ci/bench measures
settings.register_profile("here", database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep the tests of a file in one process of pytest-xdist, and all that share the HTCondor pool in one as well."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - this hook is called by pytest-xdist alone

    class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return "pool" if nodeid.startswith(POOL_TESTS) else nodeid.partition("::")[0]

    return FileScheduling(config, log)


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
