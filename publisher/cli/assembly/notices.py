"""Assembles notices from the settings, and sends them at the end of a run; a failure never fails the run."""

from __future__ import annotations

import logging
import time
import urllib.request
from typing import TYPE_CHECKING

from publisher.errors import PublisherError
from publisher.net.addresses import AddressPolicy
from publisher.net.small_files import SmallFiles
from publisher.notices.addresses import MAIL
from publisher.notices.changes import find_changes
from publisher.notices.channels import REFUSAL, mail_sender, webhook_senders
from publisher.notices.delivery import deliver
from publisher.notices.memory import NoticeMemory
from publisher.notices.recipients import Recipients

if TYPE_CHECKING:
    from publisher.settings.settings import PublisherSettings
    from publisher.status.answer import Known

_log = logging.getLogger(__name__)
_MEMORY = "notices.json"


def send_notices(settings: PublisherSettings, known: Known) -> list[str]:
    """Tell owners and operators what has changed since the last notices; return lines for the report about what was not sent.

    Nothing is done where the settings name nobody to tell. Even a bug here must not fail a run that succeeded.
    """
    if settings.mail_command is None and not settings.webhooks:
        return []
    try:
        return _send(settings, known)
    except PublisherError as error:
        return [f"notices could not be sent: {error}"]
    except Exception as error:  # noqa: BLE001 - see above
        _log.error("notices could not be sent", exc_info=error)
        return [f"notices could not be sent, because of a bug: please report it: {error!r}"]


def _send(settings: PublisherSettings, known: Known) -> list[str]:
    path, now = settings.state / _MEMORY, int(time.time())
    memory = NoticeMemory.load(path)
    recipients = Recipients(
        settings.notice_mail, settings.notice_owners, settings.webhooks, mail=settings.mail_command is not None
    )
    changes, memory.told = find_changes(known, memory.told, now, settings.notice_quiet)
    memory.waiting += recipients.notices(changes, now)
    memory.save(path)  # before anything is sent: a run that is killed then loses none
    client = SmallFiles(
        REFUSAL, AddressPolicy(networks=settings.allowed_networks), proxies=urllib.request.getproxies_environment()
    )
    repository = known.snapshot.repository
    ways = dict(webhook_senders(settings.webhooks, client, repository, now))
    if settings.mail_command is not None:
        ways[MAIL] = mail_sender(settings.mail_command, settings.mail_from, repository, now)
    memory.waiting, lines = deliver(memory.waiting, ways, now=now, clock=time.monotonic)
    memory.save(path)
    return lines
