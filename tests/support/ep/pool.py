"""A personal HTCondor pool on loopback: one machine that accepts jobs, runs them and answers queries.

As root the daemons have process ids and mounts of their own, so that nothing outlives the tests and ``/cvmfs`` is the pool's
alone; jobs are the account's that ``ci/install-system --tests`` makes. An ordinary user's pool runs as that user, in
``/cvmfs``'s stead has a directory of its own, and every job is that user's: as in a glidein.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

ACCOUNT = "image-user"
EXECUTE, EVICTED, TERMINATED, ABORTED, HELD, ANSWERED = 1, 4, 5, 9, 12, 21
"""Events of a job's log: HTCondor's manual, "Job Event Log Codes"."""
IDLE = 1
"""JobStatus."""
_PR_SET_PDEATHSIG = 1
_DEADLINE = 240
_libc = ctypes.CDLL(None, use_errno=True)

# Settings without a relation to containers: paths, permissions, short polling intervals, and what makes a start short. The startd
# asks each plugin for file transfers what it can do, at each start and each reconfiguration.
_CONFIGURATION = """
LOCAL_DIR = {root}
RELEASE_DIR = /usr
LIB = /usr/lib/condor
LIBEXEC = /usr/libexec/condor
SHARE = /usr/share/condor
ETC = $(LOCAL_DIR)
LOCK = $(LOCAL_DIR)/lock
RUN = $(LOCAL_DIR)/run
LOCAL_CONFIG_FILE =
LOCAL_CONFIG_DIR = {root}/config.d
CONDOR_HOST = 127.0.0.1
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = false
ENABLE_IPV6 = false
COLLECTOR_HOST = 127.0.0.1:{port}
USE_SHARED_PORT = true
SHARED_PORT_PORT = {port}
use role : personal
UID_DOMAIN = localhost
FILESYSTEM_DOMAIN = localhost
use SECURITY : user_based
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
ALLOW_ADMINISTRATOR = {administrators}
ALLOW_DAEMON = {administrators}
ALLOW_NEGOTIATOR = {administrators}
ALLOW_READ = *
ALLOW_WRITE = *
use feature : PartitionableSlot
NUM_CPUS = {slots}
MEMORY = 32768
RUNBENCHMARKS = false
ENABLE_KERNEL_TUNING = false
FILETRANSFER_PLUGINS = $(LIBEXEC)/curl_plugin
JAVA =
NEGOTIATOR_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 0
NEGOTIATOR_MIN_INTERVAL = 0
UPDATE_INTERVAL = 2
SCHEDD_INTERVAL = 1
SCHEDD_MIN_INTERVAL = 0
POLLING_INTERVAL = 1
PERIODIC_EXPR_INTERVAL = 1
CLAIM_WORKLIFE = 30
KILLING_TIMEOUT = 1
STARTER_INITIAL_UPDATE_INTERVAL = 1
JOB_START_COUNT = 50
JOB_START_DELAY = 1
COLLECTOR_QUERY_WORKERS = 0
MAX_STARTER_LOG = 10 Mb
"""


class Jobs:
    """One submission: ``cluster`` with processes from 0 on; output, error and the event log are in ``directory``."""

    def __init__(self, pool: Pool, cluster: int, directory: Path) -> None:
        self.pool = pool
        self.cluster = cluster
        self.directory = directory

    def output(self, process: int = 0) -> str:
        return (self.directory / f"{process}.out").read_text()

    def output_so_far(self) -> str:
        """Return the output of all processes, whether or not they have ended."""
        return "".join(path.read_text() for path in self.directory.glob("*.out"))

    def error(self, process: int = 0) -> str:
        return (self.directory / f"{process}.err").read_text()

    def events(self, process: int | None = None) -> list[tuple[int, str]]:
        """Return number and text of each event in the job's log so far."""
        return [(number, text) for who, number, text in self._all_events() if process in (None, who)]

    def _all_events(self) -> list[tuple[int, int, str]]:
        """Return process, number and text of each event in the log so far."""
        found = re.findall(r"^(\d\d\d) \(\d+\.(\d+)\.\d+\) (.*?)^\.\.\.$", self.log, re.MULTILINE | re.DOTALL)
        return [(int(process), int(number), text) for number, process, text in found]

    def count(self, *numbers: int) -> int:
        return sum(number in numbers for number, _ in self.events())

    def wait(self, *numbers: int, times: int = 1, seconds: float = _DEADLINE) -> list[str]:
        """Wait until that many events of these kinds are in the log; return their texts."""
        self.pool.until(lambda: self._count_or_go_on(*numbers) >= times, self.told, seconds)
        return [text for number, text in self.events() if number in numbers]

    def _count_or_go_on(self, *numbers: int) -> int:
        """Count these events, and end the starters of jobs whose last event is that their starter met an error."""
        events = self._all_events()
        for number, text in {process: (number, text) for process, number, text in events}.values():
            failed = re.search(r" Error from starter on (\S+?)@", text) if number == ANSWERED else None
            if failed:
                self.pool.end_failed_starters(failed[1])
        return sum(number in numbers for _, number, _ in events)

    def done(self, count: int = 1, seconds: float = _DEADLINE) -> Self:
        """Wait until all have ended, each with status 0."""
        self.wait(TERMINATED, ABORTED, HELD, times=count, seconds=seconds)
        assert self.count(TERMINATED) == count, self.told()
        assert all("(return value 0)" in text for number, text in self.events() if number == TERMINATED), self.told()
        return self

    def ad(self, process: int = 0) -> dict[str, Any]:
        """Return the job ad from the queue, or from the history if the job has left the queue."""
        for program in ("condor_q", "condor_history"):
            said = self.pool.run(program, "-json", f"{self.cluster}.{process}")
            if said.strip() not in ("", "[]"):
                ad: dict[str, Any] = json.loads(said)[0]
                return ad
        raise AssertionError(f"no job {self.cluster}.{process}")

    def text(self, attribute: str) -> str:
        """Return the unevaluated expression of an attribute in the queue."""
        return self.pool.run("condor_q", f"{self.cluster}.0", "-af:r", attribute).strip()

    @property
    def log(self) -> str:
        """Return the text of the job's log."""
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def remove(self) -> None:
        """Remove the jobs, and wait until running ones have ended."""
        self.pool.run("condor_rm", str(self.cluster), user=self.pool.account)

    def told(self) -> str:
        """Return what helps to understand a failed test."""
        errors = [path.read_text(errors="replace") for path in sorted(self.directory.glob("*.err"))]
        logs = sorted((self.pool.root / "log").glob("StarterLog.slot*"), key=lambda path: path.stat().st_mtime)
        last = logs[-1].read_text(errors="replace")[-6000:] if logs else ""
        return f"{self.log}\n--- standard error: {errors}\n--- the starter's log:\n{last}"


class Pool:
    """The daemons and their directory ``root``.

    Attributes:
        account: the user who submits and runs jobs; None for the user of the daemons, who is an ordinary one.
        cvmfs: directory that jobs see as ``/cvmfs``.
        environment: of HTCondor's programs.
    """

    def __init__(self, slots: int = 16, *, pilot: bool = False) -> None:
        """Make the directory; ``pilot`` for an ordinary user's pool, whose user is the account of the tests if this is root."""
        rooted = os.geteuid() == 0 and not pilot
        self.account = ACCOUNT if rooted else None
        self._user = ACCOUNT if os.geteuid() == 0 and pilot else None
        # not below /tmp or /var/tmp, which jobs have of their own (MOUNT_UNDER_SCRATCH): daemons and jobs would miss their files
        self.root = Path(tempfile.mkdtemp(prefix="test-pool-", dir="/var/lib" if os.geteuid() == 0 else Path.home()))
        self.root.chmod(0o755)
        self.cvmfs = Path("/cvmfs") if rooted else self.root / "cvmfs"
        for name in ("config.d", "cvmfs", "execute", "jobs", "lock", "log", "run", "spool"):
            (self.root / name).mkdir()
            if rooted and name not in ("config.d", "cvmfs"):
                shutil.chown(self.root / name, ACCOUNT if name == "jobs" else "condor")
        self.environment = {**os.environ, "CONDOR_CONFIG": str(self.root / "condor_config"), "HOME": str(self.root)}
        administrators = "root@*, condor@*" if rooted else f"{self._user or pwd.getpwuid(os.geteuid()).pw_name}@*"
        base = _CONFIGURATION.format(root=self.root, port=_free_port(), administrators=administrators, slots=slots)
        (self.root / "condor_config").write_text(base)
        if self._user:
            for path in (self.root, *self.root.iterdir()):
                shutil.chown(path, self._user, self._user)
        self._submissions = 0
        self._daemons: subprocess.Popen[bytes] | None = None

    def start(self, cvmfs: Mapping[str, Path]) -> None:
        """Start the daemons and wait for them; ``cvmfs`` maps names to the directories that CVMFS shows at first."""
        self._daemons = self._started(cvmfs)
        self.until(lambda: all(map(self._knows, ("-startd", "-schedd"))), self._what_daemons_say)

    def _knows(self, kind: str) -> bool:
        return self.run("condor_status", kind, "-af", "Name", check=False) != ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all daemons and jobs."""
        if self._daemons is not None:
            if self.account:
                os.kill(self._first_process(), signal.SIGKILL)
            else:
                self._daemons.send_signal(signal.SIGQUIT)  # HTCondor's fast shutdown
            self._daemons.wait(_DEADLINE)
        shutil.rmtree(self.root, ignore_errors=self.account is None)

    def configuration(self, name: str, text: str) -> None:
        """Write a file of the configuration; :meth:`reconfigure` makes daemons read it."""
        (self.root / "config.d" / name).write_text(text)

    def reconfigure(self, attribute: str, value: str) -> None:
        """Make the daemons read the configuration, and wait until the machine ad has these attributes."""
        self.run("condor_reconfig")

        def said() -> str:
            return self.run("condor_status", "-af", attribute, "-constraint", "PartitionableSlot").strip()

        self.until(lambda: said() == value, said)

    def run(self, *argv: str, user: str | None = None, check: bool = True) -> str:
        """Return the output of one of HTCondor's programs; it runs as ``user``, since root may not submit."""
        account = pwd.getpwnam(user or self._user or "") if user or self._user else None
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
            env=self.environment,
            cwd=self.root / "jobs",
            stdin=subprocess.DEVNULL,
            user=account and account.pw_uid,
            group=account and account.pw_gid,
            extra_groups=[] if account else None,
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stderr}{done.stdout}"
        return done.stdout

    def enter(self) -> list[str]:
        """Return the prefix of a command that runs it in the pool's mount namespace, once the pool is started."""
        if self.account is None or self._daemons is None:
            return []
        return ["nsenter", "--mount", "--pid", "--target", str(self._first_process())]

    def inside(self, *argv: str | Path) -> None:
        """Run a program in the pool's mount namespace."""
        subprocess.run([*self.enter(), *argv], check=True, timeout=_DEADLINE)

    @contextlib.contextmanager
    def running(self, *argv: str | Path) -> Iterator[None]:
        """Run a program in the pool's mount namespace, which ends when its mount does."""
        with subprocess.Popen([*self.enter(), *argv], stdin=subprocess.DEVNULL) as started:
            yield
            started.wait(_DEADLINE)

    @contextlib.contextmanager
    def stopped(self, *argv: str | Path, when: Callable[[], bool]) -> Iterator[None]:
        """Run a program in the pool's mount namespace, and stop it as soon as a condition is true."""
        with subprocess.Popen([*self.enter(), *argv], stdin=subprocess.DEVNULL) as started:
            itself = started.pid
            try:
                self.until(when, lambda: f"{argv[0]} does not come to that")
                itself = children(started.pid)[0] if self.account else started.pid  # else it is nsenter's
                os.kill(itself, signal.SIGSTOP)
                yield
            finally:
                os.kill(itself, signal.SIGKILL)
                os.kill(started.pid, signal.SIGCONT)  # nsenter stops when its child does; and only nsenter can reap that

    def is_mounted(self, path: Path) -> bool:
        """Return whether the pool sees a mount at a path."""
        mounts = Path(f"/proc/{self._first_process() if self.account else 'self'}/mounts").read_text()
        return any(line.split()[1] == str(path) for line in mounts.splitlines())

    def submit(self, description: Mapping[str, object], count: int = 1) -> Jobs:
        """Submit jobs with these submit commands; the others have small, quiet defaults."""
        self._submissions += 1
        directory = self.root / "jobs" / str(self._submissions)
        directory.mkdir()
        usual = {
            "universe": "vanilla",
            "transfer_executable": "false",
            "should_transfer_files": "yes",
            "request_cpus": 1,
            "request_memory": 50,
            "request_disk": 10000,
            "initialdir": directory,
            "output": "$(Process).out",
            "error": "$(Process).err",
            "log": "log",
        }
        lines = [f"{name} = {value}" for name, value in {**usual, **description}.items()]
        (directory / "submit").write_text("\n".join([*lines, f"queue {count}", ""]))
        owner = self.account or self._user
        if owner:
            shutil.chown(directory, owner)
        said = self.run("condor_submit", "-terse", str(directory / "submit"), user=self.account)
        return Jobs(self, int(said.partition(".")[0]), directory)

    def until(self, condition: Callable[[], bool], why: Callable[[], str], seconds: float = _DEADLINE) -> None:
        """Wait until a condition is true. Asking takes a fifth of the time at most: others need the processor."""
        end = time.monotonic() + seconds
        asked = time.monotonic()
        while not condition():
            now = time.monotonic()
            assert now < end, why()
            time.sleep(max(0.05, 4 * (now - asked)))
            asked = time.monotonic()

    def end_failed_starters(self, slot: str) -> None:
        """End those starters of a slot whose job cannot start.

        HTCondor 25.14 ends them after ten seconds, and no setting shortens that: the shadow, which has decided what becomes of
        the job, waits until the starter is gone; the starter waits to be ended; the startd ends it once the shadow has given up.
        """
        log = self.root / "log" / f"StarterLog.{slot}"
        for process in self.processes():
            words = command_line(process).split(b"\0")
            if words[0] == b"condor_starter" and slot.encode() in words:
                failed = rf"\(pid:{_innermost(process)}\) (ERROR in HookPrepareJobClient|Failed to start main job)"
                if re.search(failed, log.read_text(errors="replace")):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGTERM)

    def processes(self) -> list[int]:
        """Return the IDs of all processes in the pool, in the PID namespace of this process."""
        return list(_descendants(self._pid))

    def _started(self, cvmfs: Mapping[str, Path]) -> subprocess.Popen[bytes]:
        """Start the daemons, which end when this process ends, however it ends."""
        argv = ["condor_master", "-f"]
        if self.account:
            self.cvmfs.mkdir(exist_ok=True)
            lines = [f"mount -t tmpfs -o mode=0755 cvmfs {self.cvmfs}"]
            lines += [f"mkdir {self.cvmfs}/{name}; mount --bind {path} {self.cvmfs}/{name}" for name, path in cvmfs.items()]
            script = "\n".join([*lines, "condor_master -f", "exit"])  # the shell stays: its death is that of all in its namespace
            argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-ec", script]
        else:
            for name, path in cvmfs.items():
                (self.cvmfs / name).symlink_to(path)
        signal_at_our_death = signal.SIGKILL if self.account else signal.SIGQUIT
        with (self.root / "log" / "output").open("wb") as output:
            return subprocess.Popen(
                argv,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal_at_our_death),  # noqa: PLW1509 - a system call, no lock
            )

    @property
    def _pid(self) -> int:
        assert self._daemons is not None
        return self._daemons.pid

    def _first_process(self) -> int:
        return children(self._pid)[0]

    def _what_daemons_say(self) -> str:
        found = [f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted((self.root / "log").iterdir())]
        return "the pool does not start\n" + "\n".join(found)


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    """Return the child processes of a process; none of one that is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _descendants(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from _descendants(child)


def _innermost(pid: int) -> int:
    """Return the ID of a process in its own PID namespace; 0 for one that is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].split("\n")[0].split()[-1])
    return 0


def command_line(pid: int) -> bytes:
    """Return the words of a process's command, each with a zero byte behind it; nothing for a process that is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
