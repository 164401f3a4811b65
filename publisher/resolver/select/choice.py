"""The choice of an image's form: which forms to try on this host, in which order, and why. It reads nothing but its arguments."""

from __future__ import annotations

from publisher.resolver.config.settings import AUTO, SANDBOX, SIF
from publisher.resolver.errors import FormError, HostError
from publisher.resolver.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from publisher.resolver.select.facts import HostFacts
    from publisher.resolver.trust.lookup import FoundVersion


class FormPolicy:
    """What the settings and the job say about the form.

    Attributes:
        requested: ``auto`` or the only form to try.
        by_job: whether the job requested it, not the settings.
        prefer: the form that the site prefers.
        never: the form that the site excludes, or ``none``.
    """

    __slots__ = ("by_job", "never", "prefer", "requested")

    def __init__(self, requested: str = AUTO, prefer: str = SANDBOX, never: str = "none", *, by_job: bool = False) -> None:
        self.requested = requested
        self.by_job = by_job
        self.prefer = prefer
        self.never = never


class FormChoice:
    """A form to try, and ``why`` it has this place in the order."""

    __slots__ = ("form", "why")

    def __init__(self, form: str, why: str) -> None:
        self.form = form
        self.why = why

    def __repr__(self) -> str:
        return f"FormChoice({self.form!r}, {self.why!r})"


def choose_forms(
    image: FoundVersion, policy: FormPolicy, facts: HostFacts, *, hung: bool, has_cache: bool = True
) -> list[FormChoice]:
    """Return the forms to try, the best first.

    Args:
        image: the version of the image.
        policy: what the settings and the job say.
        facts: what was measured on this host.
        hung: whether a sandbox of this repository did not open in time a short while ago.
        has_cache: whether this host has a cache or a store for SIFs.

    Raises:
        FormError: the image is not published in the only form that the job requested.
        HostError: this host cannot run the image in any form.
    """
    published = {SANDBOX: image.version.sandbox is not None, SIF: image.version.sif is not None}
    candidates = [policy.requested] if policy.requested != AUTO else _order(policy.prefer)
    if policy.requested != AUTO and not published[policy.requested]:
        reason = f"the image {image.name} is not published as a {_noun(policy.requested)}"
        if policy.by_job:
            raise FormError(reason, hint="remove WantImageForm from the job to get the form that is published")
        raise HostError(f"{reason}, and this host is configured for no other form", hint="--form auto allows both forms")
    objections = {form: _objection(form, policy, facts, is_published=published[form]) for form in candidates}
    if SIF in objections and not has_cache:
        objections[SIF] = objections[SIF] or "a SIF needs a cache, and no cache is configured"
    for form, objection in objections.items():
        log.debug("form %s of %s: %s", form, image.name, objection or "possible")
    possible = [form for form in candidates if not objections[form]]
    if not possible:
        raise HostError(f"this host cannot run the image {image.name} in any form: {'; '.join(objections.values())}")
    doubt = ""
    if hung:
        doubt = "the sandbox did not open in time a short while ago"
    elif facts.cvmfs is False:
        doubt = "CVMFS did not answer when this host was measured"
    if doubt and possible[0] == SANDBOX and len(possible) > 1:
        return [FormChoice(SIF, doubt), FormChoice(SANDBOX, "the SIF is not available")]
    return [FormChoice(form, _why(form, policy, objections, is_first=form == possible[0])) for form in possible]


def _order(prefer: str) -> list[str]:
    return [SIF, SANDBOX] if prefer == SIF else [SANDBOX, SIF]


def _objection(form: str, policy: FormPolicy, facts: HostFacts, *, is_published: bool) -> str:
    """Return why this host cannot use a form, or an empty text if it can."""
    if not is_published:
        return f"it is not published as a {_noun(form)}"
    if policy.never == form:
        return f"the site never starts a {_noun(form)}"
    if form == SIF and facts.sif is False:
        return "SIFs do not run on this host without being unpacked"
    return ""


def _why(form: str, policy: FormPolicy, objections: dict[str, str], *, is_first: bool) -> str:
    if not is_first:
        return f"the {_noun(policy.prefer)} is not available"
    if policy.requested == form:
        return "it was requested"
    return next((objection for objection in objections.values() if objection), "the site prefers it")


def _noun(form: str) -> str:
    return "SIF" if form == SIF else form
