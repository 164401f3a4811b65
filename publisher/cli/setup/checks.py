"""The checks of ``publisher doctor``: each looks at one part of the host, and yields what it found with the next step."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.build.squash.find import find_squasher
from publisher.build.toolset import ACCEPTABLE, check_accepted, tool_versions
from publisher.cli.assembly.builder import build_account
from publisher.cli.assembly.pelican import make_tokens
from publisher.cli.assembly.registry import make_intake
from publisher.cli.assembly.run import load_list
from publisher.cli.assembly.targets import load_authorization, load_snapshot, make_origin, make_repository
from publisher.cli.console import LogDisplay, console
from publisher.contract.units import format_size
from publisher.errors import DeniedError, ListError, NotFoundError, PublisherError, UsageError
from publisher.net.server_dates import ServerDates
from publisher.plan.model import with_hint
from publisher.settings.targets import CvmfsTarget
from publisher.signing.manifest_signer import open_key
from publisher.system import accounts, command
from publisher.targets.pelican.federation.address import OriginAddress
from publisher.targets.pelican.tokens import CREATE, READ, TokenScope, claims

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from publisher.settings.settings import PublisherSettings

_MANY = 20  # registries that are asked
_LITTLE, _TOO_LITTLE = 20 * 10**9, 10**9  # bytes of free space
_SPOOL = Path("/var/spool/cvmfs")


class Verdict(Enum):
    """Whether an operator has to do something."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """What a check found: the part of the host, the verdict, and what is so or what to do."""

    part: str
    verdict: Verdict
    text: str


def examine(settings: PublisherSettings) -> Iterator[Finding]:
    """Yield the findings of all checks. Registries and the origin are asked; nothing is published or signed."""
    for part, check in _CHECKS.items():
        try:
            for verdict, text in check(settings):
                yield Finding(part, verdict, text)
        except ListError as error:
            yield Finding(part, Verdict.WRONG, f"{error}, the first: {error.problems[0]} (publisher check --all names them)")
        except PublisherError as error:
            yield Finding(part, Verdict.WRONG, str(error))


_Found = tuple[Verdict, str]


def _image_list(settings: PublisherSettings) -> Iterator[_Found]:
    found = load_list(settings)
    yield Verdict.OK, f"{settings.images} has {len(found.entries)} entries and {len(found.patterns)} patterns"


def _tools(settings: PublisherSettings) -> Iterator[_Found]:
    squasher = find_squasher(settings.compression, build_account(settings), level=settings.compression_level)
    tools = tool_versions(squasher)
    yield Verdict.OK, ", ".join(f"{name} {version}" for name, version in tools.items() if name in ACCEPTABLE)
    try:
        check_accepted(tools, settings.accepted_tools)
    except UsageError as error:
        yield Verdict.WRONG, with_hint(error.reason, error)
    wanted = ["unsquashfs"] + (["cvmfs_server"] if isinstance(settings.repository, CvmfsTarget) else [])
    path = command.environment()["PATH"]
    for program in wanted:
        if shutil.which(program, path=path) is None:
            yield Verdict.WRONG, f"{program} is not installed (run ci/install-system, or install its package)"


def _accounts(settings: PublisherSettings) -> Iterator[_Found]:
    if os.geteuid() != 0:
        yield Verdict.OK, "images are built and tested as this account"
        return
    accounts.find_account(settings.test_account, "finished images are tested as", "test_account")
    build_account(settings)
    yield Verdict.OK, f"finished images are tested as {settings.test_account}"


def _keys(settings: PublisherSettings) -> Iterator[_Found]:
    keys = [open_key(source, console.ask_secret).public for source in (settings.signing_key(), *settings.cosigning_keys)]
    yield Verdict.OK, f"{len(keys)} key(s) can sign, the first is {keys[0].keyid[:16]}"
    authorization = load_authorization(settings, make_repository(settings))
    if authorization is not None:
        now = time.time()
        authorization.check(keys, now)
        warning = authorization.expiry_warning(keys, now)
        yield (Verdict.OK, "the keys document authorizes them") if warning is None else (Verdict.WARNING, warning)


def _repository(settings: PublisherSettings) -> Iterator[_Found]:
    repository = make_repository(settings)
    repository.require_idle()
    for line in repository.examine():
        yield Verdict.WARNING, line
    if repository.is_shared:
        yield Verdict.OK, f"{repository.name} is published through {repository.shared_through}: other hosts may publish there too"
    snapshot = load_snapshot(settings)
    if not snapshot.serial:
        yield Verdict.OK, f"{settings.repository}: nothing is published yet"
    elif snapshot.expires <= time.time():
        yield Verdict.WRONG, f"the manifest of {repository.name} has expired: execution points refuse it (run publisher sync)"
    else:
        until = datetime.fromtimestamp(snapshot.expires, UTC)
        yield Verdict.OK, f"{repository.name}: serial {snapshot.serial}, valid until {until:%Y-%m-%d %H:%M} UTC"


def _origin(settings: PublisherSettings) -> Iterator[_Found]:
    target = settings.targets().origin
    if isinstance(target, OriginAddress):
        yield from _token(settings, target)
    make_origin(settings).read("manifest/index.json")
    yield Verdict.OK, f"{target} answers"


def _token(settings: PublisherSettings, target: OriginAddress) -> Iterator[_Found]:
    token = make_tokens(settings).bearer([TokenScope(READ, target.prefix), TokenScope(CREATE, target.prefix)], "/")
    if token is None:
        yield Verdict.WARNING, "requests are sent without a token (set token_file or token_key)"
        return
    said = claims(token)
    ends = said.get("exp")
    if not isinstance(ends, int):
        yield Verdict.OK, "the token is not a JWT with an expiry"
    elif ends <= time.time():
        yield Verdict.WRONG, f"the token expired on {datetime.fromtimestamp(ends, UTC):%Y-%m-%d %H:%M} UTC; renew it"
    scopes = str(said.get("scope", ""))
    if scopes and "storage.create" not in scopes and "storage.modify" not in scopes:
        yield Verdict.WRONG, f"the token may not store anything: its scopes are {scopes}"


def _space(settings: PublisherSettings) -> Iterator[_Found]:
    places = {"state": settings.state, "repository": settings.repository, "origin": settings.origin}
    if isinstance(settings.repository, CvmfsTarget):
        places["repository"] = _SPOOL
    for name, place in places.items():
        if not isinstance(place, Path):
            continue
        existing = next(path for path in (place, *place.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        verdict = Verdict.WRONG if free < _TOO_LITTLE else Verdict.WARNING if free < _LITTLE else Verdict.OK
        advice = "" if verdict is Verdict.OK else " (free space there; docs/operations.md says how much is needed)"
        yield verdict, f"{name}: {format_size(free)} are free in {place}{advice}"


def _registries(settings: PublisherSettings) -> Iterator[_Found]:
    """Ask each registry for one image of the list; also compare its clock with this host's."""
    listed, dates = load_list(settings), ServerDates()
    one_of_each = {entry.reference.registry or entry.reference.scheme: entry for entry in reversed(listed.entries)}
    asked = dict(sorted(one_of_each.items())[:_MANY])
    with make_intake(settings, LogDisplay(), dates=dates) as intake:
        answers = intake.resolve(asked.values(), {})
        warnings = intake.warnings()
    for registry, entry in asked.items():
        answer = answers[entry.name]
        if isinstance(answer, DeniedError):
            yield Verdict.WARNING, f"{registry}: {with_hint(answer.reason, answer)}"
        elif isinstance(answer, PublisherError) and not isinstance(answer, NotFoundError):
            yield Verdict.WRONG, f"{registry}: {with_hint(answer.reason, answer)}"
        else:
            yield Verdict.OK, f"{registry} answers"
    for line in warnings:
        yield Verdict.WARNING, line
    clock = dates.compare(time.time())
    if clock.is_right is False:
        yield Verdict.WRONG, f"this host's clock differs from those of {', '.join(clock.differing)}: run an NTP client"
    elif clock.is_right:
        yield Verdict.OK, f"the clock is right, as {clock.agreeing} server(s) say"
    else:
        yield Verdict.WARNING, "no registry says whether the clock is right"


_CHECKS: dict[str, Callable[[PublisherSettings], Iterator[_Found]]] = {
    "image list": _image_list,
    "tools": _tools,
    "accounts": _accounts,
    "keys": _keys,
    "repository": _repository,
    "origin": _origin,
    "space": _space,
    "registries": _registries,
}
"""The parts of the host, in the order of the output."""
