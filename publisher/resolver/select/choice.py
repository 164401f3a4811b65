"""The choice of an image's form: which forms to try on this host, in which order, and why. It reads nothing but its arguments."""

from __future__ import annotations

from publisher.resolver.config.settings import AUTO, SANDBOX, SIF, UNPACKED
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
        test_failures: how often Apptainer's test of this image failed for this job. After each failure it gets the other form.
    """

    __slots__ = ("by_job", "never", "prefer", "requested", "test_failures")

    def __init__(
        self, requested: str = AUTO, prefer: str = SANDBOX, never: str = "none", *, by_job: bool = False, test_failures: int = 0
    ) -> None:
        self.requested = requested
        self.by_job = by_job
        self.prefer = prefer
        self.never = never
        self.test_failures = test_failures


class FormChoice:
    """A form to try, and ``why`` it has this place in the order."""

    __slots__ = ("form", "why")

    def __init__(self, form: str, why: str) -> None:
        self.form = form
        self.why = why

    def __repr__(self) -> str:
        return f"FormChoice({self.form!r}, {self.why!r})"


def choose_forms(
    image: FoundVersion, policy: FormPolicy, facts: HostFacts, *, hung: bool, has_cache: bool = True, unpacks: bool = False
) -> list[FormChoice]:
    """Return the forms to try, the best first.

    Args:
        image: the version of the image.
        policy: what the settings and the job say.
        facts: what was measured on this host.
        hung: whether a sandbox of this repository could not be read in time a short while ago.
        has_cache: whether this host has a cache or a store for SIFs.
        unpacks: whether SIFs are unpacked into the cache where they cannot be mounted. That comes last: it takes long.

    Raises:
        FormError: the image is not published in the only form that the job requested.
        HostError: this host cannot run the image in any form.
    """
    published = {SANDBOX: image.version.sandbox is not None, SIF: image.version.sif is not None}
    published[UNPACKED] = published[SIF]
    candidates = [policy.requested] if policy.requested != AUTO else _order(policy.prefer)
    if policy.requested != AUTO and not published[policy.requested]:
        reason = f"the image {image.name} is not published as a {_noun(policy.requested)}"
        if policy.by_job:
            raise FormError(reason, hint="remove WantImageForm from the job to get the form that is published")
        raise HostError(f"{reason}, and this host is configured for no other form", hint="--form auto allows both forms")
    if unpacks and facts.sif is False and SIF in candidates and published[SIF] and policy.never != SIF:
        candidates.remove(SIF)
        candidates.append(UNPACKED)
    objections = {form: _objection(form, policy, facts, is_published=published[form]) for form in candidates}
    if SIF in objections and not has_cache:
        objections[SIF] = objections[SIF] or "a SIF needs a cache, and no cache is configured"
    for form, objection in objections.items():
        log.debug("form %s of %s: %s", form, image.name, objection or "possible")
    possible = [form for form in candidates if not objections[form]]
    if not possible:
        raise HostError(f"this host cannot run the image {image.name} in any form: {'; '.join(objections.values())}")
    doubt = _doubt(possible[0], policy, facts, hung=hung)
    if doubt and len(possible) > 1:
        first, *others = possible
        others_why = [FormChoice(form, doubt) for form in others]
        return [*others_why, FormChoice(first, f"the {_noun(others[0])} is not available")]
    return [FormChoice(form, _why(form, policy, objections, is_first=form == possible[0])) for form in possible]


def _doubt(form: str, policy: FormPolicy, facts: HostFacts, *, hung: bool) -> str:
    """Return why the first form should be tried last, or an empty text if it should not."""
    if policy.test_failures:
        return f"the {_noun(form)} failed Apptainer's test when the job last started" if policy.test_failures % 2 else ""
    if form != SANDBOX:
        return ""
    if hung:
        return "the sandbox could not be read in time a short while ago"
    return "CVMFS did not answer when this host was measured" if facts.cvmfs is False else ""


def _order(prefer: str) -> list[str]:
    return [SIF, SANDBOX] if prefer == SIF else [SANDBOX, SIF]


def _objection(form: str, policy: FormPolicy, facts: HostFacts, *, is_published: bool) -> str:
    """Return why this host cannot use a form, or an empty text if it can."""
    if not is_published:
        return f"it is not published as a {_noun(form)}"
    if policy.never == form:
        return f"the site never starts a {_noun(form)}"
    if form == SIF and facts.sif is False:
        return "SIFs cannot be mounted on this host"
    return ""


def _why(form: str, policy: FormPolicy, objections: dict[str, str], *, is_first: bool) -> str:
    if not is_first:
        return f"the {_noun(SIF if form == SANDBOX else SANDBOX)} is not available"
    if policy.requested == form:
        return "it was requested"
    return next((objection for objection in objections.values() if objection), "the site prefers it")


def _noun(form: str) -> str:
    return {SIF: "SIF", UNPACKED: "unpacked SIF"}.get(form, form)
