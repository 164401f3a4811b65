"""Which forms of an image are tried on this host, in which order, and why. Pure: facts and policy in, a list out."""

from __future__ import annotations

from publisher.resolver.config.settings import AUTO, SANDBOX, SIF
from publisher.resolver.errors import FormError, HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.select.facts import HostFacts
    from publisher.resolver.trust.lookup import FoundVersion


class FormPolicy:
    """What is wanted: ``asked`` (``auto`` or a form) by the settings, or ``by_job``; ``prefer`` and ``never`` by the site."""

    __slots__ = ("asked", "by_job", "never", "prefer")

    def __init__(self, asked: str = AUTO, prefer: str = SANDBOX, never: str = "none", *, by_job: bool = False) -> None:
        self.asked = asked
        self.by_job = by_job
        self.prefer = prefer
        self.never = never


class FormChoice:
    """A form to try, and ``why`` it stands where it does."""

    __slots__ = ("form", "why")

    def __init__(self, form: str, why: str) -> None:
        self.form = form
        self.why = why

    def __repr__(self) -> str:
        return f"Choice({self.form!r}, {self.why!r})"


def forms(found: FoundVersion, policy: FormPolicy, facts: HostFacts, *, hung: bool, has_cache: bool = True) -> list[FormChoice]:
    """The forms to try, the best first.

    Args:
        found: the version.
        policy: what is wanted.
        facts: what was measured of this host.
        hung: whether a sandbox of this repository did not open in time a short while ago.
        has_cache: whether there is a place for SIFs.

    Raises:
        FormError: the one form that the job asked for is not published.
        HostError: this host gives no form of it.
    """
    published = {SANDBOX: found.version.sandbox is not None, SIF: found.version.sif is not None}
    asked = [policy.asked] if policy.asked != AUTO else _by_preference(policy.prefer)
    if policy.asked != AUTO and not published[policy.asked]:
        reason = f"{found.name} is not published as a {_word(policy.asked)}"
        if policy.by_job:
            raise FormError(reason, hint="without WantImageForm the job gets what there is")
        raise HostError(f"{reason}, and nothing else is wanted here", hint="--form auto takes what there is")
    against = {form: _objection(form, published[form], policy, facts) for form in asked}
    if SIF in against and not has_cache:
        against[SIF] = against[SIF] or "there is no cache to fetch a SIF into"
    left = [form for form in asked if not against[form]]
    if not left:
        raise HostError(f"this host starts {found.name} in no form: {'; '.join(against.values())}")
    doubt = "it did not open in time a short while ago" if hung else "" if facts.cvmfs is not False else "CVMFS did not answer"
    if doubt and left[0] == SANDBOX and len(left) > 1:
        return [FormChoice(SIF, f"of the sandbox, {doubt}"), FormChoice(SANDBOX, "the SIF is not to be had")]
    return [FormChoice(form, _why(form, policy, against, first=form == left[0])) for form in left]


def _by_preference(prefer: str) -> list[str]:
    return [SIF, SANDBOX] if prefer == SIF else [SANDBOX, SIF]


def _objection(form: str, is_published: bool, policy: FormPolicy, facts: HostFacts) -> str:
    """Why a form is out of the question here, empty where it is not."""
    if not is_published:
        return f"it is not published as a {_word(form)}"
    if policy.never == form:
        return f"the site never starts a {_word(form)}"
    if form == SIF and facts.sif is False:
        return "SIFs do not run on this host without being unpacked"
    return ""


def _why(form: str, policy: FormPolicy, against: dict[str, str], *, first: bool) -> str:
    if not first:
        return f"the {_word(policy.prefer)} is not to be had"
    if policy.asked == form:
        return "it was asked for"
    return next((why for why in against.values() if why), "the site prefers it")


def _word(form: str) -> str:
    return "SIF" if form == SIF else form
