from __future__ import annotations

import itertools

import pytest

from publisher.resolver.config.settings import AUTO, SANDBOX, SIF, UNPACKED
from publisher.resolver.errors import FormError, HostError
from publisher.resolver.select import choice
from publisher.resolver.select.choice import FormPolicy
from publisher.resolver.select.facts import HostFacts
from publisher.resolver.trust.lookup import FoundVersion
from tests.support.ep.execution_point import version

BOTH = FoundVersion("htc/rocky:9", "amd64", version("x"))
SANDBOX_ALONE = FoundVersion("htc/rocky:9", "amd64", version("x", sif=None))
SIF_ALONE = FoundVersion("htc/rocky:9", "amd64", version("x", sandbox=None))
UNKNOWN = HostFacts()


def order(
    found: FoundVersion = BOTH,
    policy: FormPolicy | None = None,
    facts: HostFacts = UNKNOWN,
    *,
    hung: bool = False,
    has_cache: bool = True,
) -> list[str]:
    return [
        candidate.form for candidate in choice.choose_forms(found, policy or FormPolicy(), facts, hung=hung, has_cache=has_cache)
    ]


def measured(**found: bool | None) -> HostFacts:
    return HostFacts(1, found)


def test_the_site_says_which_form_comes_first() -> None:
    assert order() == [SANDBOX, SIF]
    assert order(policy=FormPolicy(prefer=SIF)) == [SIF, SANDBOX]


def test_what_is_never_wanted_is_never_tried() -> None:
    assert order(policy=FormPolicy(never=SANDBOX)) == [SIF]
    assert order(policy=FormPolicy(never=SIF, prefer=SIF)) == [SANDBOX]
    with pytest.raises(HostError, match="in any form: it is not published as a sandbox; the site never starts a SIF"):
        order(SIF_ALONE, FormPolicy(never=SIF))


def test_a_form_that_is_not_published_is_not_tried() -> None:
    assert order(SANDBOX_ALONE, FormPolicy(prefer=SIF)) == [SANDBOX]
    assert order(SIF_ALONE) == [SIF]


def test_what_was_asked_for_is_all_that_is_tried() -> None:
    assert order(policy=FormPolicy(SIF)) == [SIF]
    assert order(policy=FormPolicy(SANDBOX, prefer=SIF)) == [SANDBOX]
    with pytest.raises(FormError, match="not published as a SIF"):
        order(SANDBOX_ALONE, FormPolicy(SIF, by_job=True))
    with pytest.raises(HostError, match="not published as a SIF, and this host is configured for no other form"):
        order(SANDBOX_ALONE, FormPolicy(SIF))
    with pytest.raises(HostError, match="the site never starts a sandbox"):
        order(policy=FormPolicy(SANDBOX, never=SANDBOX))


def test_where_sifs_do_not_run_there_are_only_sandboxes() -> None:
    assert order(policy=FormPolicy(prefer=SIF), facts=measured(sif=False)) == [SANDBOX]
    assert order(policy=FormPolicy(prefer=SIF), facts=measured(sif=None)) == [SIF, SANDBOX]
    with pytest.raises(HostError, match="SIFs cannot be mounted on this host"):
        order(SIF_ALONE, facts=measured(sif=False))


def test_a_repository_that_does_not_answer_comes_last_not_never() -> None:
    assert order(hung=True) == order(facts=measured(cvmfs=False)) == [SIF, SANDBOX]
    assert order(facts=measured(cvmfs=True)) == [SANDBOX, SIF]
    assert order(SANDBOX_ALONE, hung=True) == [SANDBOX]
    assert order(policy=FormPolicy(SANDBOX), hung=True) == [SANDBOX]
    assert order(policy=FormPolicy(never=SIF), hung=True) == [SANDBOX]


def test_a_form_that_failed_comes_last_whatever_else_is_known() -> None:
    assert order(policy=FormPolicy(test_failures=1)) == [SIF, SANDBOX]
    assert order(policy=FormPolicy(test_failures=2), hung=True) == [SANDBOX, SIF], "then the other one again"
    assert order(policy=FormPolicy(prefer=SIF, test_failures=1)) == [SANDBOX, SIF]
    assert order(policy=FormPolicy(SANDBOX, test_failures=1)) == [SANDBOX], "it is the only one that the job wants"
    assert order(SIF_ALONE, FormPolicy(test_failures=1)) == [SIF]


def test_where_sifs_cannot_be_mounted_one_is_unpacked_if_the_sandbox_is_not_to_be_had() -> None:
    def possible(policy: FormPolicy, found: FoundVersion = BOTH, *, hung: bool = False) -> list[str]:
        choices = choice.choose_forms(found, policy, measured(sif=False), hung=hung, unpacks=True)
        return [candidate.form for candidate in choices]

    assert possible(FormPolicy()) == possible(FormPolicy(prefer=SIF)) == [SANDBOX, UNPACKED]
    assert possible(FormPolicy(), hung=True) == [UNPACKED, SANDBOX]
    assert possible(FormPolicy(), SIF_ALONE) == possible(FormPolicy(SIF)) == [UNPACKED]
    assert possible(FormPolicy(never=SIF)) == possible(FormPolicy(), SANDBOX_ALONE) == [SANDBOX]
    assert order(policy=FormPolicy(UNPACKED)) == [UNPACKED]


def test_without_a_cache_there_are_no_sifs() -> None:
    assert order(has_cache=False) == [SANDBOX]
    with pytest.raises(HostError, match="no cache is configured"):
        order(SIF_ALONE, has_cache=False)


def test_why_names_what_decided() -> None:
    def first(
        found: FoundVersion = BOTH, policy: FormPolicy | None = None, facts: HostFacts = UNKNOWN, *, hung: bool = False
    ) -> str:
        return choice.choose_forms(found, policy or FormPolicy(), facts, hung=hung)[0].why

    assert first() == "the site prefers it"
    assert first(policy=FormPolicy(SIF)) == "it was requested"
    assert first(SIF_ALONE) == "it is not published as a sandbox"
    assert first(policy=FormPolicy(never=SANDBOX)) == "the site never starts a sandbox"
    assert first(hung=True) == "the sandbox could not be read in time a short while ago"
    assert first(facts=measured(cvmfs=False)) == "CVMFS did not answer when this host was measured"
    assert [candidate.why for candidate in choice.choose_forms(BOTH, FormPolicy(prefer=SIF), UNKNOWN, hung=False)][
        1
    ] == "the SIF is not available"


def test_no_combination_offers_what_is_forbidden_or_absent() -> None:
    known = (True, False, None)
    policies = [FormPolicy(*parts) for parts in itertools.product((AUTO, SANDBOX, SIF), (SANDBOX, SIF), ("none", SANDBOX, SIF))]
    for found, policy, sif, cvmfs, hung in itertools.product(
        (BOTH, SANDBOX_ALONE, SIF_ALONE), policies, known, known, (True, False)
    ):
        try:
            offered = order(found, policy, measured(sif=sif, cvmfs=cvmfs), hung=hung)
        except (FormError, HostError):
            continue
        assert offered
        assert policy.never not in offered
        assert found.version.sandbox or SANDBOX not in offered
        assert (found.version.sif and sif is not False) or SIF not in offered
        assert policy.requested == AUTO or offered == [policy.requested]
