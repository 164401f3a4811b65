"""Sends single notices: mails through a program, posts to webhooks."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from publisher.errors import NoticeError
from publisher.net.http_errors import HttpRefusal
from publisher.notices import messages
from publisher.notices.addresses import JSON_HOOK, SLACK_HOOK
from publisher.system import command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from publisher.net.small_files import SmallFiles
    from publisher.notices.addresses import Webhook
    from publisher.notices.memory import Notice

REFUSAL = HttpRefusal(NoticeError, untrusted="install the authority of the webhook's certificate on this host")
_MAIL_DEADLINE = 30.0
_LARGEST_ANSWER = 65536
_OK = range(200, 300)


def mail_sender(program: str, sender: str | None, repository: str, now: int) -> Callable[[Notice], None]:
    """Return a function that gives a mail to a program on its standard input.

    Args:
        program: the program with its arguments; it reads the recipients from the headers, as ``sendmail -t -i`` does.
        sender: the sender's address, None if the program decides.
        repository: the repository's name.
        now: seconds since the epoch.
    """
    argv = shlex.split(program)

    def send(notice: Notice) -> None:
        content = messages.mail(repository, notice.changes, to=notice.recipient, sender=sender, now=now)
        command.run(argv, deadline=_MAIL_DEADLINE, stdin=content)

    return send


def webhook_senders(
    hooks: Sequence[Webhook], client: SmallFiles, repository: str, now: int
) -> Mapping[str, Callable[[Notice], None]]:
    """Return channel -> function that posts a notice to its webhook.

    Args:
        hooks: the webhooks of the settings.
        client: sends requests, to allowed addresses only.
        repository: the repository's name.
        now: seconds since the epoch.
    """
    urls = {hook.id: hook.url for hook in hooks}

    def post(notice: Notice, content: bytes) -> None:
        url = urls.get(notice.recipient)
        if url is None:  # the settings have lost it since
            return
        try:
            status, _ = client.post(url, {"Content-Type": "application/json"}, content, _LARGEST_ANSWER)
        except ValueError:
            raise NoticeError("a webhook is not the URL of a server", hint="correct the setting webhooks") from None
        if status not in _OK:
            host = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
            raise NoticeError(f"the webhook at {host} answers with status {status}")

    return {
        JSON_HOOK: lambda notice: post(notice, messages.json_body(repository, notice.changes, now)),
        SLACK_HOOK: lambda notice: post(notice, messages.slack_body(repository, notice.changes)),
    }
