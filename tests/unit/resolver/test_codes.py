from __future__ import annotations

import pytest

from publisher.resolver import codes, errors
from publisher.resolver.errors import ResolverError


def kinds(root: type[ResolverError] = ResolverError) -> list[type[ResolverError]]:
    return [kind for child in root.__subclasses__() for kind in (child, *kinds(child))]


def test_only_what_the_user_can_mend_puts_a_job_on_hold() -> None:
    for code, name, who, meaning, remedy in codes.TABLE:
        assert (code < codes.FIRST_OF_HOST) == (who == codes.USER), name
        assert who in (codes.USER, codes.SITE, codes.NETWORK)
        assert name
        assert meaning
        assert remedy


def test_numbers_and_names_are_there_once() -> None:
    assert len({row[0] for row in codes.TABLE}) == len({row[1] for row in codes.TABLE}) == len(codes.TABLE)
    constants = {value for name, value in vars(codes).items() if isinstance(value, int) and name.isupper()}
    assert constants - {codes.FIRST_OF_HOST} == {row[0] for row in codes.TABLE}


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_the_status_and_the_commands_exit_code_blame_the_same_side(kind: type[ResolverError]) -> None:
    code = codes.of(kind("it failed"))
    assert (code < codes.FIRST_OF_HOST) == (kind.exit_code == 1)
    assert codes.name(code)


def test_each_kind_of_failure_has_its_own_status() -> None:
    assert codes.of(errors.UnknownImageError("")) == 101
    assert codes.of(errors.ArchitectureError("")) == 102
    assert codes.of(errors.BlockedError("")) == 103
    assert codes.of(errors.ReferenceError("")) == 104
    assert codes.of(errors.FormError("")) == 105
    assert codes.of(errors.UsageError("")) == 302
    assert codes.of(errors.ManifestError("")) == 310
    assert codes.of(errors.SandboxError("")) == 320
    assert codes.of(errors.FetchError("")) == 321
    assert codes.of(errors.CacheError("")) == 322
    assert codes.of(errors.RoomError("")) == 323
    assert codes.of(errors.BusyError("")) == 324
    assert codes.of(errors.HostError("")) == 330
    assert codes.of(ResolverError("")) == 399
