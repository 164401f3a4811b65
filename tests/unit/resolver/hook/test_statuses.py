from __future__ import annotations

import pytest

from publisher.contract.errors import ExpectedError, InvalidReferenceError, ManifestError
from publisher.resolver import errors
from publisher.resolver.hook import statuses


def kinds(root: type[ExpectedError] = ExpectedError) -> list[type[ExpectedError]]:
    return [kind for child in root.__subclasses__() for kind in (child, *kinds(child))]


def test_only_what_the_user_can_mend_puts_a_job_on_hold() -> None:
    for code, name, who, meaning, remedy in statuses.TABLE:
        assert (code < statuses.FIRST_HOST_STATUS) == (who == statuses.USER), name
        assert who in (statuses.USER, statuses.SITE, statuses.NETWORK)
        assert name
        assert meaning
        assert remedy


def test_numbers_and_names_are_there_once() -> None:
    assert len({row[0] for row in statuses.TABLE}) == len({row[1] for row in statuses.TABLE}) == len(statuses.TABLE)
    constants = {value for name, value in vars(statuses).items() if isinstance(value, int) and name.isupper()}
    assert constants - {statuses.FIRST_HOST_STATUS} == {row[0] for row in statuses.TABLE}


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_the_status_and_the_commands_exit_code_blame_the_same_side(kind: type[ExpectedError]) -> None:
    code = statuses.for_error(kind("it failed"))
    assert (code < statuses.FIRST_HOST_STATUS) == (kind.exit_code == 1)
    assert statuses.short_name(code)


def test_each_kind_of_failure_has_its_own_status() -> None:
    assert statuses.for_error(errors.UnknownImageError("")) == 101
    assert statuses.for_error(errors.ArchitectureError("")) == 102
    assert statuses.for_error(errors.BlockedError("")) == 103
    assert statuses.for_error(InvalidReferenceError("")) == 104
    assert statuses.for_error(errors.FormError("")) == 105
    assert statuses.for_error(errors.ShellError("")) == 106
    assert statuses.for_error(errors.ResolverUsageError("")) == 302
    assert statuses.for_error(errors.KilledError("")) == 306
    assert statuses.for_error(ManifestError("")) == 310
    assert statuses.for_error(errors.SandboxError("")) == 320
    assert statuses.for_error(errors.FetchError("")) == 321
    assert statuses.for_error(errors.CacheError("")) == 322
    assert statuses.for_error(errors.CacheSpaceError("")) == 323
    assert statuses.for_error(errors.CacheBusyError("")) == 324
    assert statuses.for_error(errors.HostError("")) == 330
    assert statuses.for_error(ExpectedError("")) == 399
