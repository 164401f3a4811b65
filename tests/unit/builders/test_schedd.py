"""The door to the schedd and the program behind it, with bindings that a test plays; tests/system/pool has real ones."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import types
from typing import Any

import pytest

from publisher.builders import schedd, schedd_program
from publisher.builders.jobs import ATTRIBUTES, IDLE, QueueChanges
from publisher.builders.schedd import ScheddQueue
from publisher.errors import CommandError, UsageError
from publisher.system import command
from publisher.system.command import CompletedCommand, UnixAccount

AD = {"ClusterId": 1, "ProcId": 0, "JobStatus": IDLE, "OspoolImageBuild": "ab" * 32, "Iwd": "/jobs/1", "QDate": 1.0}


class Undefined(int):
    """An attribute that an ad does not define."""

    __module__ = "classad2._value"


class PlayedBindings(types.ModuleType):
    """The module htcondor2, with a queue that records what it is told."""

    HTCondorException = type("HTCondorException", (Exception,), {})
    JobAction = types.SimpleNamespace(Remove="remove")
    Submit = dict

    def __init__(self, *ads: dict[str, Any]) -> None:
        super().__init__("htcondor2")
        self.ads = ads
        self.told: list[object] = []
        self.error: Exception | None = None

    def Schedd(self) -> PlayedBindings:  # noqa: N802 - the bindings' name
        if self.error is not None:
            raise self.error
        return self

    def act(self, action: str, jobs: list[str], reason: str) -> None:
        self.told.append((action, jobs, bool(reason)))

    def edit(self, constraint: str, attribute: str, value: str) -> None:
        self.told.append((constraint, attribute, value))

    def submit(self, description: dict[str, str], count: int) -> None:
        self.told.append((description, count))

    def query(self, constraint: str, projection: list[str]) -> list[dict[str, Any]]:
        assert projection
        return [ad for ad in self.ads if constraint == "mine" or ad["JobStatus"] == IDLE]


def request(**changes: object) -> dict[str, Any]:
    return {"remove": [], "submit": [], "requirements": None, "constraint": "mine", "attributes": list(AD), **changes}


def test_the_program_removes_submits_and_answers_with_the_jobs() -> None:
    bindings = PlayedBindings({**AD, "Iwd": Undefined(7), "QDate": object()})
    asked = request(remove=["2.0"], submit=[{"executable": "x"}], requirements="true")
    assert schedd_program.carry_out(asked, bindings) == [{name: AD[name] for name in AD if name not in {"Iwd", "QDate"}}]
    assert bindings.told == [
        ("remove", ["2.0"], True),
        ("(mine) && JobStatus == 1", "Requirements", "true"),
        ({"executable": "x"}, 1),
    ]


def test_requirements_of_no_job_are_not_edited() -> None:
    bindings = PlayedBindings()
    assert schedd_program.carry_out(request(requirements="true"), bindings) == []
    assert bindings.told == []


def run_program(monkeypatch: pytest.MonkeyPatch, bindings: PlayedBindings, stdin: str) -> int:
    monkeypatch.setitem(sys.modules, "htcondor2", bindings)
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    return schedd_program.main()


def test_the_program_speaks_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(monkeypatch, PlayedBindings(AD), json.dumps(request())) == 0
    assert json.loads(capsys.readouterr().out) == [AD]


def test_the_program_says_why_the_schedd_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bindings = PlayedBindings()
    bindings.error = PlayedBindings.HTCondorException("Failed to\nconnect")
    assert run_program(monkeypatch, bindings, json.dumps(request())) == 1
    assert capsys.readouterr().err == "Failed to connect"


def test_the_queue_is_asked_as_the_jobs_account_and_with_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[dict[str, Any]] = []

    def run(argv: list[str], **more: Any) -> CompletedCommand:
        runs.append({"argv": argv, **more})
        return CompletedCommand(0, json.dumps([AD]).encode(), "")

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setenv("CONDOR_CONFIG", "/pool/condor_config")
    account = UnixAccount(1234, 1234)
    queue = ScheddQueue("here", account)
    (job,) = queue.jobs()
    assert (job.id, job.directory) == ("1.0", "/jobs/1")
    queue.change(QueueChanges(remove=["1.0"]))
    asked = [json.loads(run["stdin"]) for run in runs]
    assert [one["remove"] for one in asked] == [[], ["1.0"]]
    assert asked[0]["constraint"] == 'OspoolImageDeployment == "here"'
    assert asked[0]["attributes"] == list(ATTRIBUTES)
    assert runs[0]["account"] == account
    assert runs[0]["env"]["CONDOR_CONFIG"] == "/pool/condor_config"


def test_a_schedd_that_cannot_be_reached_is_a_failed_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDOR_CONFIG", os.devnull)
    with pytest.raises(CommandError, match="HTCondor's schedd failed with status 1"):
        ScheddQueue("here").jobs()


def test_missing_bindings_are_said_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    schedd.check_bindings()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"need HTCondor's Python bindings \(htcondor2\) \(install the extra"):
        schedd.check_bindings()
