"""HTCondor's hook ``job-exit``: the job has ended, so its pins are released.

A failure is reported and otherwise ignored: the pins become invalid a moment later anyway, when the starter ends.
"""

from __future__ import annotations

import os
import sys

from publisher.contract.errors import ExpectedError
from publisher.resolver.cache import pins
from publisher.resolver.config.commandline import CommandLine
from publisher.resolver.system import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the hook with the arguments of the process and return 0. The job ad on standard input is not needed."""
    try:
        line = CommandLine(arguments)
        line.configure_log()
        settings = line.settings(os.environ)
        starter = pins.find_starter(os.environ)
        for root in (settings.cache, settings.store):
            if root is not None:
                pins.release(root, starter)
    except (OSError, ExpectedError) as error:
        log.error(str(error))
    except Exception:  # noqa: BLE001 - the outermost frame: a bug here must not fail a job that has already run
        sys.excepthook(*sys.exc_info())
    return 0
