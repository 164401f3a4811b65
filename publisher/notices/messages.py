"""The text of notices: a mail, and the bodies for webhooks. Pure.

Names, reasons and owners may be a stranger's: everything that is not printable is escaped, headers have one line, JSON is ASCII,
and nothing can become a mention or a link in Slack.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING

from publisher.notices.addresses import is_address
from publisher.system.logs import printable, redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from publisher.notices.changes import StateChange

_SHOWN = 50
"""Changes that a mail or a Slack message names."""
_LONGEST = 1000  # characters of a reason
_SUBJECT = 150


def mail(repository: str, changes: Sequence[StateChange], *, to: str, sender: str | None, now: int) -> bytes:
    """Return a mail as a whole, for a program such as ``sendmail -t``.

    Args:
        repository: the repository's name.
        changes: the changes.
        to: the recipient's address.
        sender: the sender's address, None if the program decides.
        now: seconds since the epoch.

    Raises:
        ValueError: an address is not one.
    """
    if not all(is_address(address) for address in (to, *([] if sender is None else [sender]))):
        raise ValueError(f"{to!r} is not an address")
    message = EmailMessage()
    message["To"] = to
    if sender is not None:
        message["From"] = sender
    message["Subject"] = _clean(f"[{repository}] {_headline(changes)}")[:_SUBJECT]
    message["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no robot answers it
    lines = [f"Images in {repository} have changed their state:", ""]
    lines += [f"{_line(change)}\n    {_reason(change)}" for change in changes[:_SHOWN]]
    lines += _rest(changes)
    lines += ["", "`publisher status NAME` and the status page say more. Who gets this mail: docs/monitoring.md.", ""]
    message.set_content("\n".join(lines), cte="quoted-printable")
    return message.as_bytes()


def json_body(repository: str, changes: Sequence[StateChange], now: int) -> bytes:
    """Return the body for a webhook that takes JSON; times are seconds since the epoch, null where they are not known."""
    value = {
        "schema": 1,
        "repository": repository,
        "time": now,
        "changes": [
            {
                "name": change.name,
                "state": change.state,
                "before": change.before or None,
                "reason": _reason(change),
                "since": change.since or None,
                "owner": change.owner or None,
            }
            for change in changes
        ],
    }
    return json.dumps(value).encode("ascii")


def slack_body(repository: str, changes: Sequence[StateChange]) -> bytes:
    """Return the body for a webhook of Slack, or of a program that takes the same (Mattermost, Rocket.Chat, Discord's /slack)."""
    lines = [f"{repository}: {_headline(changes)}", *(f"• {_line(change)}: {_reason(change)}" for change in changes[:_SHOWN])]
    text = "\n".join(map(_slack, [*lines, *_rest(changes)]))
    return json.dumps({"text": text, "mrkdwn": False, "link_names": False, "unfurl_links": False}).encode("ascii")


def _headline(changes: Sequence[StateChange]) -> str:
    if len(changes) == 1:
        return f"{changes[0].name}: {changes[0].state}"
    states = [change.state for change in changes]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _line(change: StateChange) -> str:
    since = "" if not change.since else f" since {datetime.fromtimestamp(change.since, UTC):%Y-%m-%d %H:%M} UTC"
    return _clean(f"{change.name}: {change.state}{since}{f' (was {change.before})' if change.before else ' (new)'}")


def _reason(change: StateChange) -> str:
    return _clean(change.reason)[:_LONGEST]


def _rest(changes: Sequence[StateChange]) -> list[str]:
    return [] if len(changes) <= _SHOWN else [f"and {len(changes) - _SHOWN} more: publisher list"]


def _clean(text: str) -> str:
    """Return a text in one line, without credentials and with characters escaped that are not printable."""
    return printable(redact(" ".join(text.split())))


def _slack(text: str) -> str:
    """Return a text in which Slack reads no mention and no link: ``<!channel>``, ``<@U1>``, ``<https://…>``, ``@here``."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("@", "@\u2060").replace("://", ":\u2060//")
