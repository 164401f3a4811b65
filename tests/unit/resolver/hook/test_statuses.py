from __future__ import annotations

import pytest

from publisher.contract.errors import ExpectedError, InvalidReferenceError, ManifestError
from publisher.resolver import errors
from publisher.resolver.hook import statuses


def kinds(root: type[ExpectedError] = ExpectedError) -> list[type[ExpectedError]]:
    return [kind for child in root.__subclasses__() for kind in (child, *kinds(child))]


def test_only_what_the_user_can_mend_puts_a_job_on_hold() -> None:
    for code, name, who, meaning, remedy in statuses.TABLE:
        assert (code < statuses.FIRST_OF_HOST) == (who == statuses.USER), name
        assert who in (statuses.USER, statuses.SITE, statuses.NETWORK)
        assert name
        assert meaning
        assert remedy


def test_numbers_and_names_are_there_once() -> None:
    assert len({row[0] for row in statuses.TABLE}) == len({row[1] for row in statuses.TABLE}) == len(statuses.TABLE)
    constants = {value for name, value in vars(statuses).items() if isinstance(value, int) and name.isupper()}
    assert constants - {statuses.FIRST_OF_HOST} == {row[0] for row in statuses.TABLE}


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_the_status_and_the_commands_exit_code_blame_the_same_side(kind: type[ExpectedError]) -> None:
    code = statuses.of(kind("it failed"))
    assert (code < statuses.FIRST_OF_HOST) == (kind.exit_code == 1)
    assert statuses.name(code)


def test_each_kind_of_failure_has_its_own_status() -> None:
    assert statuses.of(errors.UnknownImageError("")) == 101
    assert statuses.of(errors.ArchitectureError("")) == 102
    assert statuses.of(errors.BlockedError("")) == 103
    assert statuses.of(InvalidReferenceError("")) == 104
    assert statuses.of(errors.FormError("")) == 105
    assert statuses.of(errors.ResolverUsageError("")) == 302
    assert statuses.of(ManifestError("")) == 310
    assert statuses.of(errors.SandboxError("")) == 320
    assert statuses.of(errors.FetchError("")) == 321
    assert statuses.of(errors.CacheError("")) == 322
    assert statuses.of(errors.CacheSpaceError("")) == 323
    assert statuses.of(errors.CacheBusyError("")) == 324
    assert statuses.of(errors.HostError("")) == 330
    assert statuses.of(ExpectedError("")) == 399
