"""The caller of ``cvmfs_server``, with a program in its place that records how it was started and prints what a test sets."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from publisher.errors import ANOTHER_RUN, RepositoryError, SpaceError
from publisher.targets.repositories.cvmfs.claim import read_record
from publisher.targets.repositories.cvmfs.errors import LeaseBusyError, LeaseExpiredError
from publisher.targets.repositories.cvmfs.host import CvmfsHost, HostPaths
from publisher.targets.repositories.cvmfs.server import MARK, CvmfsServer, CvmfsTimeouts

if TYPE_CHECKING:
    from pathlib import Path

FQRN = "images.example.org"
PROGRAM = """#!{python} -SE
import json, os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
with open(here + "/started", "w") as file:
    json.dump({{"argv": sys.argv[1:], "cwd": os.getcwd(), "stdin": sys.stdin.read(), "session": os.getsid(0),
                "mark": os.environ.get("{mark}"), "secret": os.environ.get("SECRET")}}, file)
with open(here + "/orders") as file:
    status, flag, out, err, seconds = json.load(file)
if flag:
    open(here + "/flag", "w").close()
sys.stdout.write(out)
sys.stderr.write(err)
sys.stdout.flush()
time.sleep(seconds)
sys.exit(status)
"""


class Tool:
    """A ``cvmfs_server`` whose output and exit status a test sets."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.path = where / "cvmfs_server"
        self.path.write_text(PROGRAM.format(python=sys.executable, mark=MARK))
        self.path.chmod(0o755)
        self.server = CvmfsServer(FQRN, str(self.path), CvmfsTimeouts(transaction=10, publish=10, abort=10))
        self.says(0)

    def says(self, status: int, out: str = "", err: str = "", *, flag: bool = False, seconds: float = 0) -> None:
        (self.where / "orders").write_text(json.dumps([status, flag, out, err, seconds]))

    @property
    def started(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.where / "started").read_text())
        return found

    def open(self, template: tuple[str, str] | None = None) -> bool:
        return self.server.open("token", self.where / "record", self.where / "flag", template)


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path)


def test_the_tool_has_nothing_to_read_no_secrets_and_a_session_of_its_own_at_the_root(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    for command in (tool.open, lambda: tool.server.publish("token"), lambda: tool.server.abort("token")):
        command()
        assert (tool.started["stdin"], tool.started["cwd"], tool.started["secret"]) == ("", "/", None)
        assert tool.started["session"] != os.getsid(0)
        assert tool.started["mark"] == "token"


def test_commands_are_spelt_so_that_nothing_is_asked(tool: Tool) -> None:
    tool.open()
    assert tool.started["argv"] == ["transaction", FQRN]
    tool.open((".images/0a/x", ".images/0b/y"))
    assert tool.started["argv"] == ["transaction", "-T", ".images/0a/x=.images/0b/y", FQRN]
    tool.server.publish("token")
    assert tool.started["argv"] == ["publish", "-f", FQRN]
    tool.server.abort("token")
    assert tool.started["argv"] == ["abort", "-f", FQRN]


@pytest.mark.parametrize("path", ["a;touch /x", "a b", "a$(x)", "a'b", 'a"b', "a\nb", "a`b`", "a|b", "a&b", "é", ""])
def test_no_argument_reaches_the_tool_that_a_shell_would_see_more_in(tool: Tool, path: str) -> None:
    (tool.where / "started").write_text("{}")
    with pytest.raises(RepositoryError, match="shell"):
        tool.open((path, ".images/0b/y"))
    assert tool.started == {}


@pytest.mark.parametrize(
    ("status", "err", "reason", "hint"),
    [
        (2, "cannot open transaction on non-existing path", "parent of the path", "publish the parent"),
        (3, "Unrecognized option", "does not know this option", "2.8 or newer"),
        (5, "cannot load whitelist", "whitelist or the stratum 0 cannot be read", "web server"),
        (17, "another transaction is already open", "somebody else's transaction is open", "not touched"),
        (20, "which is not a directory", "not a directory", "look at what is there"),
        (22, "whitelist for $name is expired", "whitelist has expired, or the repository's layout", f"resign {FQRN}"),
        (1, "is not mounted read/write", "is not mounted read/write", f"cvmfs_server mount {FQRN}"),
        (1, "(unexpected termination) cannot acquire lease", "cannot acquire lease", "start the gateway"),
        (99, "", "printed nothing", "cvmfs_server list"),
    ],
)
def test_every_way_not_to_open_a_transaction_says_what_to_do(tool: Tool, status: int, err: str, reason: str, hint: str) -> None:
    tool.says(status, "", f"{err}\n")
    with pytest.raises(RepositoryError) as refused:
        tool.open()
    assert reason in refused.value.reason
    assert hint in (refused.value.hint or "")
    assert read_record(tool.where / "record") == (status, None)


def test_a_busy_lease_is_another_run_and_says_how_long_it_lasts(tool: Tool) -> None:
    tool.says(16, "Path busy. Time remaining = 1h59m59.7s\n", "CernVM-FS transaction error: lease path busy\n")
    with pytest.raises(LeaseBusyError) as busy:
        tool.open()
    assert busy.value.reason.endswith("another publisher host has the gateway's lease: Path busy. Time remaining = 1h59m59.7s")
    assert busy.value.exit_code == ANOTHER_RUN


def test_a_lease_that_was_over_at_the_publish_is_too_much_for_one_transaction(tool: Tool) -> None:
    said = 'SessionContext::DoUpload - error reply: {"reason":"invalid lease","status":"error"}'
    tool.says(1, "Swissknife Sync: Processing changes...\n", f"{said}\nKilled\nSynchronization failed\n\nExecuted Command:\nx\n")
    with pytest.raises(LeaseExpiredError, match="lease was over before the transaction was published: SessionContext") as over:
        tool.server.publish("token")
    assert isinstance(over.value, SpaceError), "a batch is halved"
    assert "max_lease_time" in str(over.value.hint)


@pytest.mark.parametrize("status", [0, 22])
def test_a_lease_without_a_transaction_is_given_back_by_an_abort(tool: Tool, status: int) -> None:
    tool.says(status, "", "Repository is not in a transaction")
    tool.server.give_back_lease()
    assert tool.started["argv"] == ["abort", "-f", FQRN]


def test_a_gateway_that_does_not_answer_keeps_a_lease_from_being_given_back(tool: Tool) -> None:
    tool.says(5, "", "Make lease drop request failed: 7. Reply: ''\ncannot drop lease")
    with pytest.raises(RepositoryError, match="cannot drop lease") as failed:
        tool.server.give_back_lease()
    assert "start the gateway" in str(failed.value.hint)


def test_a_refused_template_is_no_failure(tool: Tool) -> None:
    tool.says(22, "", "cannot clone directory tree")
    assert not tool.open(("a", "b"))


def test_what_the_tool_opened_is_on_record(tool: Tool) -> None:
    tool.says(0, flag=True)
    assert tool.open()
    host_paths = HostPaths(tool.where, tool.where, tool.where)
    host = CvmfsHost("", host_paths)
    host.flag = tool.where / "flag"
    status, identity = read_record(tool.where / "record")
    assert status == 0
    assert identity is not None
    assert identity == host.open_transaction()
    (tool.where / "other").touch()
    (tool.where / "other").rename(tool.where / "flag")
    assert identity != host.open_transaction()


def test_a_record_that_does_not_fit_on_the_disk_is_none(tool: Tool) -> None:
    (tool.where / "record.new").symlink_to("/dev/full")
    tool.says(0, flag=True)
    assert tool.open()
    assert not os.path.lexists(tool.where / "record")
    assert read_record(tool.where / "record") == (None, None)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"0", b"0\n1 2", b"x\n1 2.000000000\n", b"\xff", b"0\n1 2.000000000\n1", b"-1\n"]
)
def test_a_damaged_record_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record").write_bytes(content)
    assert read_record(tmp_path / "record") == (None, None)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (f"Open writable file descriptors on {FQRN}", "lsof"),
        (f"Current working directory is in /cvmfs/{FQRN}.", f"leave /cvmfs/{FQRN}"),
        (f"Another publish process is active for {FQRN}", "when it has ended"),
        ("Repository unavailable under http://localhost/cvmfs/x", "web server"),
        (f"Repository whitelist for {FQRN} is expired!", f"resign {FQRN}"),
        ("Garbage collection failed (1)", "CVMFS_AUTO_GC=false"),
        ("catalog at / has more than 200000 entries: limit exceeded", "CVMFS_ENFORCE_LIMITS"),
        ("Killed", "CVMFS_ENFORCE_LIMITS"),
        (f"Permission denied: Repository {FQRN} is owned by cvmfs", "owner"),
        ("something new", "cvmfs_server list"),
    ],
)
@pytest.mark.parametrize("stream", ["out", "err"])
def test_a_publish_that_failed_says_why_and_what_to_do(tool: Tool, said: str, hint: str, stream: str) -> None:
    """The tool exits with 1 for every failure, and prints the reason on either stream, before a long command line."""
    shown = f"{said}\n\nExecuted Command:\ncvmfs_swissknife sync -u /cvmfs/x limit\n"
    tool.says(1, *(shown, "") if stream == "out" else ("", shown))
    with pytest.raises(RepositoryError) as failed:
        tool.server.publish("token")
    assert failed.value.reason.endswith(f"publish failed with status 1: {said}")
    assert hint in (failed.value.hint or "")


@pytest.mark.parametrize(
    "said",
    [
        "write: No space left on device",
        "failed to write 65536 bytes to '/srv/cvmfs/x/data/txn/upload.x' (errno: 28)\nKilled",
        "failed to close temp file (errno: 122)",
    ],
)
def test_no_room_is_an_error_of_its_own(tool: Tool, said: str) -> None:
    tool.says(1, "", f"{said}\nSynchronization failed\n\nExecuted Command:\nx")
    with pytest.raises(SpaceError, match="no space left"):
        tool.server.publish("token")


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (f"Repository {FQRN} is not in a transaction", "cvmfs_server list"),
        ("umount: /var/spool/cvmfs/x/rdonly: target is busy.", "lsof"),
        ("(unexpected termination) cannot load whitelist [failed to download whitelist]\n\nStacktrace:\n/lib/x", "web server"),
        ("Could not acquire lock /var/spool/cvmfs/x/is_publishing.lock", "fuser -v"),
    ],
)
def test_an_abort_that_failed_says_why(tool: Tool, said: str, hint: str) -> None:
    tool.says(22, "", said)
    with pytest.raises(RepositoryError, match="abort failed with status 22") as failed:
        tool.server.abort("token")
    assert "/lib/x" not in failed.value.reason
    assert hint in (failed.value.hint or "")


def test_an_abort_that_a_reader_is_in_the_way_of_can_be_tried_again(tool: Tool) -> None:
    tool.says(5, "", "umount: /var/spool/cvmfs/x/rdonly: target is busy.")
    assert not tool.server.abort("token", last=False)
    tool.says(5, "", "something else")
    with pytest.raises(RepositoryError):
        tool.server.abort("token", last=False)
    tool.says(0)
    assert tool.server.abort("token", last=False)


def test_a_command_that_does_not_end_is_ended(tool: Tool) -> None:
    tool.says(0, seconds=60)
    server = CvmfsServer(FQRN, str(tool.path), CvmfsTimeouts(publish=0.5, transaction=0.5))
    with pytest.raises(RepositoryError, match=r"cvmfs_server publish did not end within 0\.5 s and was killed"):
        server.publish("token")
    with pytest.raises(RepositoryError, match=r"cvmfs_server transaction did not end within 0\.5 s and was killed"):
        server.open("token", tool.where / "record", tool.where / "flag")
    assert read_record(tool.where / "record") == (None, None)  # so that nobody takes it for opened


def test_a_host_without_the_tool_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError) as missing:
        CvmfsServer(FQRN, str(tmp_path / "cvmfs_server")).publish("token")
    assert "cvmfs-server package" in (missing.value.hint or "")


@pytest.mark.parametrize(
    ("said", "keeps"),
    [
        ("CernVM-FS Server Tool 2.12.0-1", True),
        ("CernVM-FS Server Tool 2.13.3", True),
        ("CernVM-FS Server Tool 3.0.0", True),
        ("CernVM-FS Server Tool 2.11.5-1", False),
        ("something else", False),
    ],
)
def test_older_tools_ignore_that_owners_are_to_be_kept(tool: Tool, said: str, keeps: bool) -> None:
    tool.says(3, f"{said}\n\nUsage: cvmfs_server COMMAND")
    assert tool.server.keeps_owners() == keeps


def test_a_stream_is_ingested_from_a_descriptor_that_the_tool_inherits(tool: Tool) -> None:
    read, write = os.pipe()
    started: list[bool] = []
    tool.server.ingest("token", ".images/0a", read, lambda: started.append(True))
    assert tool.started["argv"] == ["ingest", "-k", "-t", f"/dev/fd/{read}", "-b", ".images/0a", FQRN]
    assert (tool.started["stdin"], tool.started["mark"], started) == ("", "token", [True])
    tool.says(1, err="Synchronization failed")
    with pytest.raises(RepositoryError, match="cvmfs_server ingest failed with status 1: Synchronization failed"):
        tool.server.ingest("token", ".images/0a", read, lambda: None)
    os.close(read)
    os.close(write)
