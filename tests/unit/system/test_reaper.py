"""That it works when a process is killed is in test_command.py; here is what it does, in this process."""

from __future__ import annotations

import os
import signal
import subprocess

from publisher.system.reaper import Reaper, watch


def test_sessions_that_have_not_ended_are_killed_at_the_end() -> None:
    left, ended, gone = (subprocess.Popen(["sleep", "1000"], start_new_session=True) for _ in range(3))
    gone.kill()
    gone.wait()
    watch([b"+%d\n" % process.pid for process in (left, ended, gone)] + [b"-%d\n" % ended.pid])
    assert left.wait(60) == -signal.SIGKILL
    assert ended.poll() is None
    ended.kill()
    ended.wait()


def test_a_guard_that_was_killed_stops_nobody() -> None:
    guard = Reaper()
    guard.start()
    reader, guard._pipe = os.pipe()
    os.close(reader)
    with guard.over(os.getpid()):
        pass
    os.close(guard._pipe)
