"""Metrics of the publication in the text form of Prometheus, from the overview and from what the last run said of itself.

``ci/monitoring`` has alert rules and a dashboard for them. All names begin with ``publisher_``; times are seconds since 1970.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from publisher.status.answer import ImageState
from publisher.status.lag import percentile

if TYPE_CHECKING:
    from publisher.status.last_run import LastRun
    from publisher.status.overview import Overview


def render(overview: Overview, last: LastRun, *, keys_until: int | None = None) -> bytes:
    """Return the metrics as text.

    Args:
        overview: the state of the publication.
        last: what the last run said of itself.
        keys_until: when the keys document ends the right of a key to sign, None with one level of keys.
    """
    registry = CollectorRegistry()
    _of_publication(registry, overview, keys_until)
    _of_last_run(registry, last)
    return generate_latest(registry)


def _of_publication(registry: CollectorRegistry, overview: Overview, keys_until: int | None) -> None:
    _gauge(registry, "manifest_serial", "Serial of the published manifest", overview.serial)
    _gauge(registry, "manifest_expiry_seconds", "When the published manifest expires", overview.expires)
    _gauge(registry, "problems", "Problems of the publication as a whole, as publisher status lists them", len(overview.problems))
    if keys_until is not None:
        _gauge(registry, "keys_expiry_seconds", "When the keys document ends the right of a key to sign", keys_until)
    images = Gauge("publisher_images", "Images by state", ["state"], registry=registry)
    for state in ImageState:
        images.labels(state.value).set(overview.counts.get(state, 0))


def _of_last_run(registry: CollectorRegistry, last: LastRun) -> None:
    _gauge(registry, "last_run_seconds", "When the last run ended", last.finished)
    _gauge(registry, "last_success_seconds", "When the last run ended that needed no operator", last.succeeded)
    _gauge(registry, "last_run_exit_code", "Exit code of the last run", last.exit_code)
    _gauge(registry, "removals_withheld", "1 if the last run withheld removals", int(last.withheld))
    labelled = (
        ("last_run_images", "Images of the last run by result", "result", last.results),
        ("phase_duration_seconds", "Duration of the last run by phase", "phase", last.phases),
        ("bytes", "Bytes of the last run by direction", "direction", last.bytes),
        ("registry_requests", "Requests of the last run by registry", "registry", last.requests),
        ("registry_pulls_remaining", "Pulls that the registry's limit still allowed", "registry", last.remaining),
    )
    for name, text, label, values in labelled:
        gauge = Gauge(f"publisher_{name}", text, [label], registry=registry)
        for key, value in values.items():
            gauge.labels(key).set(value)
    behind = Gauge(
        "publisher_origin_behind", "1 for an origin that lacks something of the first one", ["origin"], registry=registry
    )
    for name in last.behind:
        behind.labels(name).set(1)
    text = "From the change of a tag to its publication, in the last 30 days"
    shares = Gauge("publisher_lag_seconds", text, ["share"], registry=registry)
    for share in (0.5, 0.9) if last.lags else ():
        shares.labels(str(share)).set(percentile([lag for _, lag in last.lags], share))
    _gauge(registry, "transactions", "Transactions of the last run", len(last.transactions))
    _gauge(registry, "transaction_seconds_max", "The longest transaction of the last run", max(last.transactions, default=0))


def _gauge(registry: CollectorRegistry, name: str, text: str, value: float) -> None:
    Gauge(f"publisher_{name}", text, registry=registry).set(value)
