"""What an image says of itself: labels, environment, entry point; and what changed in its last build. Pure.

The texts are those of strangers. They are cut to a size that a page can show, and the templates escape them.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from publisher.fileindex.difference import FileChange

_MOST, _LONGEST = 200, 2000
"""Labels, variables or arguments that are kept, and characters of each."""
_MOST_PATHS = 40
_LARGEST_CONFIG = 1 << 20  # bytes of an image config that is looked at


@dataclass(frozen=True)
class ImageDetails:
    """What the config of an image says.

    Attributes:
        created: when it was built according to its config, seconds since the epoch; 0 if it does not say.
        labels: label -> value.
        environment: the variables, as ``NAME=value``.
        entrypoint, command: the words of both; together they are what ``apptainer run`` starts.
        user, directory: the account and the working directory, which HTCondor's jobs do not use.
    """

    created: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    environment: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    directory: str = ""

    def encode(self) -> str:
        """Return the details as text; :meth:`decode` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> ImageDetails:
        """Return the details in a text that :meth:`encode` made."""
        value: dict[str, Any] = json.loads(text)
        values: dict[str, Any] = {
            name: tuple(content) if isinstance(content, list) else content for name, content in value.items()
        }
        return cls(**values)


@dataclass(frozen=True)
class BuildChanges:
    """What changed in a build since the one before.

    Attributes:
        previous: digest of the build before.
        added, removed, changed: numbers of paths.
        size: bytes that the files have grown by; negative if they have shrunk.
        paths: ``+``, ``-`` or ``~``, the path, and its size now, of those whose sizes changed most.
        sif_size: bytes of the new SIF.
        sif_needed: bytes of it that an execution point with the SIF before has not; None if that is not known.
    """

    previous: str
    added: int = 0
    removed: int = 0
    changed: int = 0
    size: int = 0
    paths: tuple[tuple[str, str, int], ...] = ()
    sif_size: int = 0
    sif_needed: int | None = None

    def encode(self) -> str:
        """Return the changes as text; :meth:`decode` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> BuildChanges:
        """Return the changes in a text that :meth:`encode` made."""
        value = json.loads(text)
        return cls(**{**value, "paths": tuple(map(tuple, value["paths"]))})


def read_config(raw: bytes) -> ImageDetails:
    """Return what an image config says; values of an unexpected kind are left out."""
    config = _object(json.loads(raw) if len(raw) <= _LARGEST_CONFIG else {})
    inner = _object(config.get("config"))
    return ImageDetails(
        created=_time(config.get("created")),
        labels=_labels(inner.get("Labels")),
        environment=_texts(inner.get("Env")),
        entrypoint=_texts(inner.get("Entrypoint")),
        command=_texts(inner.get("Cmd")),
        user=_cut(inner.get("User")),
        directory=_cut(inner.get("WorkingDir")),
    )


def labels_of(content: bytes) -> ImageDetails:
    """Return what ``.singularity.d/labels.json`` of a sandbox says, for images of which the config is not at hand."""
    try:
        return ImageDetails(labels=_labels(json.loads(content) if len(content) <= _LARGEST_CONFIG else {}))
    except (ValueError, RecursionError):
        return ImageDetails()


def summarize(previous: str, changes: Iterable[FileChange]) -> BuildChanges:
    """Return a summary of the differences between two file indexes; ``previous`` is the digest of the older build."""
    counts = {"+": 0, "-": 0, "~": 0}
    size = 0
    largest: list[tuple[int, str, str, int]] = []
    for change in changes:
        counts[change.sign] += 1
        before, after = (0 if line is None or line.kind != "f" else line.size for line in (change.before, change.after))
        size += after - before
        path = _cut(change.path.decode("utf-8", "backslashreplace"))
        item = (max(before, after) if change.sign != "~" else abs(after - before), path, change.sign, after)
        (heapq.heappush if len(largest) < _MOST_PATHS else heapq.heappushpop)(largest, item)
    paths = tuple((sign, path, after) for _, path, sign, after in sorted(largest, key=lambda item: (-item[0], item[1])))
    return BuildChanges(previous, counts["+"], counts["-"], counts["~"], size, paths)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _labels(value: Any) -> dict[str, str]:
    labels = {_cut(name): _cut(text) for name, text in _object(value).items() if isinstance(text, str)}
    return dict(sorted(labels.items())[:_MOST])


def _texts(value: Any) -> tuple[str, ...]:
    """Return the texts of a list, or a single text as one."""
    listed = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(_cut(text) for text in listed[:_MOST] if isinstance(text, str))


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _time(value: Any) -> int:
    """Return seconds since the epoch of a time in RFC 3339, 0 for anything else; reproducible builds say the year 1970."""
    try:
        moment = datetime.fromisoformat(str(value))
        return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        return 0
