"""HTCondor's hook ``job-exit``: the job is over, and what it was given may be removed again.

Whatever goes wrong is said and is no failure: the pins end with the starter, a moment later.
"""

from __future__ import annotations

import os
import sys

from publisher.contract.errors import ExpectedError
from publisher.resolver.cache import pins
from publisher.resolver.config.commandline import CommandLine, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the hook with the process's arguments; always 0. The job's ad on standard input is not needed."""
    try:
        settings = CommandLine(arguments).settings(os.environ)
        starter = pins.starter(os.environ)
        for root in (settings.cache, settings.store):
            if root is not None:
                pins.release(root, starter)
    except (OSError, ExpectedError) as error:
        say([str(error)])
    except Exception:  # noqa: BLE001 - the outermost frame: a bug here must not cost a job that has run
        sys.excepthook(*sys.exc_info())
    return 0
