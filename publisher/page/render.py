"""Renders the page's files from values. Pure.

Every text may be that of a stranger: Jinja2 escapes all of them, data for scripts is JSON in ASCII, and characters that are not
printable, or that change the direction of text, are shown as escapes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from publisher import __version__
from publisher.contract.units import format_size
from publisher.page import places
from publisher.page.memory import FAILED
from publisher.state import publication_log
from publisher.status.answer import ImageState
from publisher.system.logs import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from publisher.page.rows import Row

_HERE = Path(__file__).parent
ASSETS = ("style.css", "page.js")
SYMBOLS = {
    ImageState.PUBLISHED: "✓",
    ImageState.HELD: "‖",
    ImageState.WAITING: "…",
    ImageState.BUILDING: "↻",
    ImageState.FAILING: "!",
    ImageState.GONE: "∅",
    ImageState.EXPIRING: "↓",
    ImageState.EXPIRED: "↓",
    ImageState.BLOCKED: "✕",
    ImageState.DROPPED: "·",
    ImageState.UNLISTED: "?",
}
WORDS = {
    publication_log.NEW: "published",
    publication_log.CHANGED: "updated",
    publication_log.EXISTING: "was published before the log began",
    publication_log.ROLLBACK: "rolled back",
    publication_log.ROLLBACK_UNDONE: "rollback undone",
    publication_log.BLOCK: "blocked",
    publication_log.UNBLOCK: "no longer blocked",
    publication_log.LEAVING: "leaves",
    publication_log.ENDED: "ended",
    publication_log.REMOVED: "removed",
    publication_log.FORMS: "published in other forms",
    FAILED: "began to fail",
}
"""What happened to an image -> how the page says it."""
_COLORS = {ImageState.PUBLISHED: "#1d6b32", ImageState.FAILING: "#a3201a", ImageState.BLOCKED: "#a3201a"}
_OTHER_COLOR = "#7a4a00"
_CHARACTER, _MARGIN = 6.6, 12  # widths in a badge: an average character of its font, and the space around a text
_MOST_IN_BADGE = 80
TABLE_ROWS = 50
"""Rows that the first page has without its script."""


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters |= {
        "iso": lambda seconds: f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "time": lambda seconds: f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC",
        "size": format_size,
        "duration": lambda seconds: f"{seconds} s" if seconds < 120 else f"{seconds // 60} min",  # noqa: PLR2004
        "sentence": _sentence,
        "shell": shlex.join,
        "image_url": lambda name: places.url(places.image_path(name)),
    }
    made.globals |= {
        "symbols": {state.value: symbol for state, symbol in SYMBOLS.items()},
        "states": [state.value for state in SYMBOLS if state not in {ImageState.DROPPED, ImageState.UNLISTED}],
        "words": WORDS,
        "assets": assets_version(),
    }
    return made


def keep_compiled(directory: Path) -> None:
    """Keep compiled templates in a directory, and use those that are there; nobody else may be able to write to it.

    Raises OSError if the directory cannot be made.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    _environment().bytecode_cache = FileSystemBytecodeCache(str(directory))


def render(template: str, **values: Any) -> bytes:
    """Return a file that the template of this name makes of values."""
    return _environment().get_template(template).render(**values).encode()


@functools.cache
def asset(name: str) -> bytes:
    """Return the content of a style sheet or script."""
    return (_HERE / "assets" / name).read_bytes()


@functools.cache
def assets_version() -> str:
    """Return a text that changes with the templates, the style sheet and the script."""
    content = hashlib.sha256(__version__.encode())
    for path in sorted([*(_HERE / "templates").iterdir(), *(_HERE / "assets").iterdir()]):
        content.update(path.read_bytes())
    return content.hexdigest()[:12]


def badge(row: Row) -> bytes:
    """Return the badge of an image as SVG."""
    name = row.name if len(row.name) <= _MOST_IN_BADGE else f"…{row.name[-_MOST_IN_BADGE:]}"
    left, right = (round(_CHARACTER * len(text)) + _MARGIN for text in (name, row.state))
    color = _COLORS.get(ImageState(row.state), _OTHER_COLOR)
    return render("badge.svg", row=row, name=name, left=left, right=right, color=color)


def shard(rows: Iterable[Row]) -> bytes:
    """Return a shard of rows, as a script that hands them to the page."""
    values = [
        [
            row.name,
            row.state,
            "" if row.state == ImageState.PUBLISHED.value else printable(row.reason),
            row.since,
            row.until,
            row.usable,
            row.digest,
            row.source,
            row.changed,
            row.platforms,
            row.sandbox,
            row.sif,
            printable(row.owner),
        ]
        for row in rows
    ]
    return script("publisherShard", values)


def script(function: str, value: object) -> bytes:
    """Return a script that calls a function of the page with a value. It is ASCII, and JSON is a subset of JavaScript."""
    return f"window.{function}({json.dumps(value, separators=(',', ':'))});\n".encode("ascii")


def images_json(rows: Sequence[Row], repository: str) -> bytes:
    """Return images.json: all rows as JSON."""
    value = {"schema": 1, "repository": repository, "images": [row.to_json() for row in rows]}
    return (json.dumps(value, separators=(",", ":")) + "\n").encode()


def signature_lines(builds: Iterable[tuple[str, Any]]) -> list[str]:
    """Return a line for each verified signer, and for each attachment, of platform and version."""
    lines = []
    for platform, version in builds:
        if version.signed is not None:
            signer = version.signed.get("identity") or f"the key {version.signed.get('key', '')}"
            lines.append(f"{platform}: signed by {signer}; the publisher verified it")
        lines += [f"{platform}: {one.get('kind')} {one.get('digest')} ({one.get('type')})" for one in version.attached or ()]
    return lines


def counts(values: Mapping[ImageState, int]) -> dict[str, int]:
    """Return the number of images by state as text."""
    return {state.value: count for state, count in values.items()}


def _shown(value: object) -> object:
    """Return what a template shows of a value: texts without characters that are not printable."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else "\n".join(map(printable, value.split("\n")))


def _sentence(text: str) -> str:
    written = text[:1].upper() + text[1:]
    return written if written.endswith((".", "!", "?", "…")) else f"{written}."
