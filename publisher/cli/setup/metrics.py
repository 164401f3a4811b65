"""The command ``publisher metrics``, and the text file that every sync writes for node_exporter."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

import click

from publisher.cli.assembly.known import know
from publisher.cli.assembly.targets import load_authorization, make_repository
from publisher.cli.console import console
from publisher.cli.options import common
from publisher.contract import files
from publisher.contract.errors import os_reason
from publisher.errors import PublisherError, UsageError
from publisher.status.last_run import load_last_run, make_last_run, save_last_run
from publisher.status.overview import make_overview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from publisher.publish.report import RunReport
    from publisher.registry.client import RegistryUse
    from publisher.settings.settings import PublisherSettings

_log = logging.getLogger(__name__)


@click.command("metrics", short_help="Print or serve metrics for Prometheus.")
@click.option("--listen", metavar="HOST:PORT", help="Serve them at http://HOST:PORT/metrics until the end of this command.")
@common
def metrics_command(*, listen: str | None, settings: PublisherSettings) -> None:
    """Print metrics of the publication and of the last run, as Prometheus reads them. Registries are not asked.

    With the setting metrics_file, every sync writes them to a file for node_exporter's textfile collector. Alert rules and a
    dashboard are in ci/monitoring.

    Example: publisher metrics --listen 127.0.0.1:9740
    """
    if listen is None:
        click.echo(metrics_text(settings).decode(), nl=False)
        return
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"{listen!r} is not an address to listen at", hint="write HOST:PORT, such as 127.0.0.1:9740")
    with make_server(host, int(port), application(lambda: metrics_text(settings)), handler_class=_QuietHandler) as server:
        console.tell(f"serving http://{host}:{server.server_port}/metrics")
        server.serve_forever()


def application(text: Callable[[], bytes]) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """Return a WSGI application that serves ``/metrics``; ``text`` makes them anew for each request."""
    lock = threading.Lock()

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"see /metrics\n"]
        try:
            with lock:
                body = text()
        except PublisherError as error:
            start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{error}\n".encode()]
        start_response("200 OK", [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")])
        return [body]

    return serve


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        _log.debug(format, *args)


def metrics_text(settings: PublisherSettings) -> bytes:
    """Return the metrics as text.

    Raises:
        PublisherError: what is published cannot be read.
    """
    from publisher.status.metrics import render  # noqa: PLC0415 - it takes a tenth of a second, and few runs write metrics

    overview = make_overview(know(settings), int(time.time()), settings.sync_interval, load_last_run(settings.state).behind)
    authorization = load_authorization(settings, make_repository(settings))
    ends = [] if authorization is None else [key.until for key in authorization.document.keys.values()]
    return render(overview, load_last_run(settings.state), keys_until=min(ends, default=None))


def record_run(settings: PublisherSettings, report: RunReport, use: RegistryUse) -> None:
    """Remember what a run said of itself and write the metrics; a failure is logged, and the run is none the worse for it."""
    try:
        save_last_run(settings.state, make_last_run(report, use, time.time(), load_last_run(settings.state)))
        if settings.metrics_file is not None:
            files.replace(str(settings.metrics_file), metrics_text(settings), mode=0o644)
    except (OSError, PublisherError) as error:
        _log.warning("the metrics of this run are not written: %s", os_reason(error))
