"""Ends a program and its children when the process that started them was killed: by a hook at its deadline, out of memory.

A shell of its own, in a session of its own, that reads from a pipe which group there is; the pipe's end is that process's end.
(PR_SET_PDEATHSIG reaches no grandchild, and subprocess has no way to ask for it that is safe beside threads.)
"""

from __future__ import annotations

import contextlib
import subprocess

from publisher.resolver.errors import FetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SHELL = "/bin/sh"
_SCRIPT = 'read -r group && { read -r over || kill -s KILL -- "-$group"; }'


@contextlib.contextmanager
def guarded() -> Iterator[Callable[[int], None]]:
    """Yields what is told the process group that must not outlive this process; the block ends when the group has.

    Raises:
        FetchError: the shell does not start.
    """
    try:
        shell = subprocess.Popen(
            [_SHELL, "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={},
            start_new_session=True,
        )
    except OSError as error:
        raise FetchError(f"{_SHELL} does not start: {error.strerror}") from None
    with shell as process:

        def tell(line: bytes) -> None:
            with contextlib.suppress(BrokenPipeError):  # somebody killed it: the deadline is left
                process.stdin.write(line)  # type: ignore[union-attr]  # it is a pipe

        try:
            yield lambda group: tell(b"%d\n" % group)
        finally:
            tell(b"over\n")
