"""The command ``watch``: syncs images when registries say that they were pushed."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import click

from publisher.cli.assembly.run import load_list
from publisher.cli.console import console
from publisher.cli.options import common, given_flags
from publisher.cli.state_directory import lock_state
from publisher.errors import AnotherRunError, UsageError
from publisher.net.loop import BackgroundLoop
from publisher.status.running import is_running
from publisher.watch.authentication import read_secrets
from publisher.watch.listener import Listener, ListenerOptions
from publisher.watch.pending import PendingPushes
from publisher.watch.runner import SyncRunner, run_sync_process

if TYPE_CHECKING:
    from publisher.settings.settings import PublisherSettings

_PENDING = "pushed.json"


@click.command("watch", short_help="Sync images when registries say that they were pushed.")
@common
def watch_command(settings: PublisherSettings) -> None:
    """Listen for push events of registries, and run sync NAME for each image of the list that they name, until this is ended.

    Takes the webhooks of Harbor, Docker Hub and Quay, and the notifications of distribution (docker-registry), at
    http://HOST:PORT/events of watch_listen. A secret of the file watch_secrets authenticates them: as the header Authorization,
    at the end of the path (/events/SECRET), or as the key of the signature X-Hub-Signature-256. The timer's sync of the whole
    list goes on as before; two syncs never run at once. See docs/watch.md.

    Example: publisher watch --watch-listen 127.0.0.1:9741 --watch-secrets /etc/ospool-image-publisher/watch.secrets
    """
    if settings.watch_secrets is None:
        raise UsageError("no secret authenticates the registries", hint="give --watch-secrets FILE")
    host, _, port = settings.watch_listen.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"{settings.watch_listen!r} is not an address to listen at", hint="write HOST:PORT for watch_listen")
    options = ListenerOptions(host.strip("[]"), int(port), read_secrets(settings.watch_secrets), settings.watch_rate)
    load_list(settings)  # a list that is not valid fails at once
    _make_state(settings)
    pending = PendingPushes(settings.state / _PENDING)
    argv = [sys.executable, "-P", "-m", "publisher", "sync", "--json", *given_flags(click.get_current_context())]
    runner = SyncRunner(
        pending,
        partial(load_list, settings),
        partial(run_sync_process, argv, os.environ),
        is_running=lambda: is_running(settings.state),
        pause=time.sleep,
    )
    with ExitStack() as stack:
        loop = stack.enter_context(BackgroundLoop())
        listener = loop.submit(Listener(options, pending.add, time.monotonic).__aenter__()).result()
        stack.callback(lambda: loop.submit(listener.__aexit__()).result())
        console.tell(f"listening at http://{host}:{listener.port}/events")
        while True:
            runner.run_next()


def _make_state(settings: PublisherSettings) -> None:
    """Make and check the state directory; a run that is under way has done so."""
    try:
        with lock_state(settings.state):
            pass
    except AnotherRunError:
        pass
