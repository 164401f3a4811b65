"""Single notices through a real program and to a real server on loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
from typing import TYPE_CHECKING

import pytest

from publisher.errors import CommandError, NoticeError
from publisher.net.addresses import AddressPolicy
from publisher.net.small_files import SmallFiles
from publisher.notices.addresses import JSON_HOOK, MAIL, SLACK_HOOK, Webhook
from publisher.notices.changes import StateChange
from publisher.notices.channels import REFUSAL, mail_sender, webhook_senders
from publisher.notices.memory import Notice
from tests.support.registries.name_server import NameServer
from tests.support.registries.scripted_http import ScriptedServer, says

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registries.scripted_http import Reply

FAILS = StateChange("htc/rocky:9", "failing", "published", "it has no shell", 1795946400, "ann@example.org")
THIS_HOST = AddressPolicy(networks=[ipaddress.ip_network("127.0.0.1/32")])


def client(policy: AddressPolicy = THIS_HOST, address: str = "127.0.0.1") -> SmallFiles:
    return SmallFiles(REFUSAL, policy, proxies={}, resolver=NameServer([address]))


async def post(routes: dict[str, list[Reply]], form: str) -> ScriptedServer:
    async with ScriptedServer(routes) as server:
        hook = Webhook(form, f"http://hooks.example:{server.address.rpartition(':')[2]}/secret")
        send = webhook_senders([hook], client(), "images.example.org", 7)[form]
        await asyncio.to_thread(send, Notice(form, hook.id, (FAILS,), 7))
        return server


@pytest.mark.parametrize(("form", "key"), [(JSON_HOOK, "changes"), (SLACK_HOOK, "text")])
async def test_a_webhook_gets_the_form_that_it_takes(form: str, key: str) -> None:
    server = await post({"POST /secret": [says(200, "ok")]}, form)
    (asked,) = server.asked
    assert "htc/rocky:9" in json.dumps(json.loads(asked.body)[key])
    assert asked.headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_a_webhook_that_refuses_is_named_by_its_host_alone(status: int) -> None:
    with pytest.raises(NoticeError, match=rf"^the webhook at hooks\.example:\d+ answers with status {status}$"):
        await post({"POST /secret": [says(status, Location="http://hooks.example/other")]}, JSON_HOOK)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "169.254.169.254"])
async def test_no_webhook_leads_to_an_address_that_is_neither_public_nor_allowed(address: str) -> None:
    hook = Webhook(JSON_HOOK, "http://hooks.example/secret")
    send = webhook_senders([hook], client(AddressPolicy(), address), "images.example.org", 7)[JSON_HOOK]
    with pytest.raises(NoticeError, match="has no public address") as refused:
        await asyncio.to_thread(send, Notice(JSON_HOOK, hook.id, (FAILS,), 7))
    assert "secret" not in str(refused.value)


def test_a_webhook_that_the_settings_have_lost_is_asked_nothing() -> None:
    webhook_senders([], client(), "images.example.org", 7)[JSON_HOOK](Notice(JSON_HOOK, "gone", (FAILS,), 7))


def test_a_webhook_that_is_no_url_is_a_failure() -> None:
    hook = Webhook(JSON_HOOK, "hooks.example")
    with pytest.raises(NoticeError, match="not the URL of a server"):
        webhook_senders([hook], client(), "images.example.org", 7)[JSON_HOOK](Notice(JSON_HOOK, hook.id, (FAILS,), 7))


def test_a_mail_goes_to_the_standard_input_of_the_program(tmp_path: Path) -> None:
    script = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    send = mail_sender(f"{sys.executable} -c \"{script}\" '{tmp_path}/a mail'", None, "images.example.org", 7)
    send(Notice(MAIL, "ann@example.org", (FAILS,), 7))
    assert b"\nTo: ann@example.org\n" in b"\n" + (tmp_path / "a mail").read_bytes()


def test_a_mail_program_that_fails_is_an_expected_failure() -> None:
    with pytest.raises(CommandError, match="failed with status 3"):
        mail_sender(f"{sys.executable} -c 'raise SystemExit(3)'", None, "r", 7)(Notice(MAIL, "ann@example.org", (FAILS,), 7))
