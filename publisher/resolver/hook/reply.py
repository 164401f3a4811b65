"""The reply to HTCondor: its text, and how it gets from the hook's child process to the parent.

A reply is an answer (the bytes that HTCondor reads) and a delay (seconds to wait before it is written).
"""

from __future__ import annotations

from publisher.resolver.hook import statuses
from publisher.resolver.system import classad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.resolver.system.classad import Value

_MAX_MESSAGE = 1000  # characters; the message becomes part of the job ad and the job's log


def success(message: str, updates: Mapping[str, Value]) -> bytes:
    """Return the answer that lets the job start; a message becomes an event in the job's log."""
    status = {"HookStatusMessage": _shorten(message)} if message else {}
    return classad.serialize({"HookStatusCode": statuses.OK, **status, **updates})


def failure(code: int, message: str) -> bytes:
    """Return the answer that says why the job cannot start here; the message ends with the short name of the status."""
    return classad.serialize({"HookStatusCode": code, "HookStatusMessage": f"{_shorten(message)} [{statuses.short_name(code)}]"})


def pack(answer: bytes, delay: float) -> bytes:
    """Return a reply as the child process sends it."""
    return f"{delay}\n".encode() + answer


def unpack(content: bytes) -> tuple[bytes, float]:
    """Return the answer and the delay of a reply that the child process sent."""
    delay, _, answer = content.partition(b"\n")
    return answer, float(delay)


def _shorten(message: str) -> str:
    """Return a message on one line and with a limited length."""
    return " ".join(message.split())[:_MAX_MESSAGE]
