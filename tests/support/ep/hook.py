"""The hook as HTCondor runs it: the job ad as input, and the output as HTCondor interprets it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.resolver.system import classad

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from publisher.resolver.system.classad import Value
    from tests.support.ep.execution_point import ExecutionPoint

WATCHDOG = 60.0
STARTS = ("SingularityImage", "ContainerImage", "WantSIF", "WantSandboxImage", "WantDockerImage")
"""Attributes of an answer that make a job start in an image."""


@dataclass(frozen=True)
class Reply:
    """An answer of the hook: ``code``, ``message``, the attributes that it sets, and its standard error (``talk``)."""

    code: int
    message: str
    updates: dict[str, Value]
    talk: str

    @property
    def image(self) -> str:
        """Return the image that the job starts in; check that the attributes of all universes agree."""
        assert self.updates["SingularityImage"] == self.updates["ContainerImage"]
        assert self.updates["WantDockerImage"] is False
        assert self.updates["WantSIF"] is not self.updates["WantSandboxImage"]
        return str(self.updates["SingularityImage"])

    @property
    def form(self) -> str:
        return "sif" if self.updates["WantSIF"] else "sandbox"

    @property
    def is_untouched(self) -> bool:
        return self.code == 0 and not set(self.updates) & set(STARTS)


def job_ad(**attributes: Value) -> bytes:
    """Return a job ad in the format of HTCondor."""
    job = {"MyType": "Job", "ClusterId": 7, "ProcId": 0, "Owner": "user", **attributes}
    return classad.serialize(job) + b'Requirements = (TARGET.Arch == "X86_64") && true\nRank = 0.0\n'


def reply(output: bytes, talk: str = "") -> Reply:
    """Parse an answer as HTCondor does; check that every line is an attribute and that the status comes first."""
    lines = output.decode().splitlines()
    assert lines, talk
    assert all(" = " in line for line in lines)
    assert lines[0].startswith("HookStatusCode = ")
    values = classad.parse(output).values()
    found = {line.partition(" = ")[0]: value for line, value in zip(lines, values) if isinstance(value, (str, int))}
    assert len(found) == len(lines)
    code = found.pop("HookStatusCode")
    assert isinstance(code, int)
    return Reply(code, str(found.pop("HookStatusMessage", "")), found, talk)


class Hook:
    """``prepare-job`` on an execution point, configured by variables, so that flags can change single settings.

    ``environment`` is what HTCondor gives it, ``scratch`` the job's directory.
    """

    def __init__(self, program: Sequence[str | Path], ep: ExecutionPoint, **more: str) -> None:
        self.scratch = ep.root / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self.command = [*map(str, program), "prepare-job"]
        places = {"repository": ep.repository, "repository_name": ep.repository.name, "public_key": ep.keys, "origin": ep.origin}
        settings = {**places, "cache": ep.cache, "arch": "amd64", **more}
        variables = {f"IMAGE_RESOLVER_{name.upper()}": str(value) for name, value in settings.items()}
        self.environment = {"PATH": os.environ["PATH"], **variables}

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        pipe, command = subprocess.PIPE, [*self.command, *flags]
        return subprocess.Popen(command, cwd=self.scratch, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe)

    def run(self, content: bytes, *flags: str) -> Reply:
        with self.start(*flags) as process:
            out, err = process.communicate(content, timeout=WATCHDOG)
        assert process.returncode == 0, err
        return reply(out, err.decode())

    def job(self, *flags: str, **attributes: Value) -> Reply:
        """Run the hook for a job with these attributes; a flag and its value are one word, such as ``--form=sif``."""
        return self.run(job_ad(**attributes), *flags)
