"""What the hook answers HTCondor, and when."""

from __future__ import annotations

from publisher.resolver.hook import classad as ads
from publisher.resolver.hook import statuses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from publisher.resolver.hook.classad import Value

_LONGEST_MESSAGE = 1000  # characters; it ends up in the job's ad and in its log


class HookReply:
    """``answer`` is what HTCondor reads; ``talk`` goes to standard error; ``wait`` seconds are waited before either."""

    __slots__ = ("answer", "talk", "wait")

    def __init__(self, answer: bytes, talk: str = "", wait: float = 0.0) -> None:
        self.answer = answer
        self.talk = talk
        self.wait = wait

    def to_bytes(self) -> bytes:
        """As one process sends it to another."""
        return f"{self.wait} {len(self.answer)}\n".encode() + self.answer + self.talk.encode("utf-8", "replace")

    @classmethod
    def from_bytes(cls, content: bytes) -> HookReply:
        """As it was sent."""
        head, _, rest = content.partition(b"\n")
        wait, size = head.split()
        return cls(rest[: int(size)], rest[int(size) :].decode("utf-8", "replace"), float(wait))


def success(message: str, updates: Mapping[str, Value]) -> bytes:
    """The answer that lets the job start; a message becomes an event in the job's log."""
    said = {"HookStatusMessage": _short(message)} if message else {}
    return ads.written({"HookStatusCode": statuses.OK, **said, **updates})


def failure(code: int, message: str) -> bytes:
    """The answer that says why there is no image."""
    return ads.written({"HookStatusCode": code, "HookStatusMessage": f"{_short(message)} [{statuses.name(code)}]"})


def _short(message: str) -> str:
    return " ".join(message.split())[:_LONGEST_MESSAGE]
