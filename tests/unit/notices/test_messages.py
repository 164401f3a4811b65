"""The text of notices, whoever wrote the names and reasons in it."""

from __future__ import annotations

import email
import email.policy
import json
from typing import TYPE_CHECKING

import pytest

from publisher.notices.addresses import is_address
from publisher.notices.changes import StateChange
from publisher.notices.messages import json_body, mail, slack_body
from tests.support.page.hostile import HOSTILE

if TYPE_CHECKING:
    from email.message import EmailMessage

NAME = "images.example.org"
FAILS = StateChange("htc/rocky:9", "failing", "published", "it has no shell", 1795946400, "ann@example.org")
ATTACK = "x\r\nBcc: everybody@example.org\n\n<!channel> <@U1> @here https://evil.example/?token=secret"
HOSTILE_CHANGE = StateChange(f"htc/{ATTACK}:1", "failing", "", HOSTILE + ATTACK, 0, ATTACK)


def read(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    return message


def text_of(message: EmailMessage) -> str:
    return str(message.get_content())


def test_a_mail_says_what_changed_and_why() -> None:
    message = read(mail(NAME, [FAILS], to="ann@example.org", sender="images@example.org", now=1795946460))
    assert (message["To"], message["From"]) == ("ann@example.org", "images@example.org")
    assert message["Subject"] == f"[{NAME}] htc/rocky:9: failing"
    assert message["Auto-Submitted"] == "auto-generated"
    assert "htc/rocky:9: failing since 2026-11-29 10:00 UTC (was published)\n    it has no shell" in text_of(message)


def test_many_changes_are_counted_in_the_subject_and_cut_in_the_text() -> None:
    many = [StateChange(f"a/b:{number}", "failing", "", "no tar", 0, "") for number in range(60)] + [FAILS]
    message = read(mail(NAME, many, to="ann@example.org", sender=None, now=0))
    assert message["Subject"] == f"[{NAME}] 61 failing"
    assert "and 11 more" in text_of(message)
    assert "a/b:50" not in text_of(message)
    assert message["From"] is None


def test_hostile_texts_add_no_header_and_no_control_character_to_a_mail() -> None:
    content = mail(NAME, [HOSTILE_CHANGE], to="ann@example.org", sender=None, now=0)
    message = read(content)
    assert sorted(message.keys()) == sorted(
        ["To", "Subject", "Date", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding", "MIME-Version"]
    )
    assert message["To"] == "ann@example.org"
    text = text_of(message)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert [line for line in text.splitlines() if line.startswith("Bcc")] == []
    assert "secret" not in text


def test_hostile_texts_stay_texts_in_json() -> None:
    content = json_body(NAME, [HOSTILE_CHANGE, FAILS], 7)
    assert content.isascii()
    value = json.loads(content)
    assert (value["schema"], value["repository"], value["time"], len(value["changes"])) == (1, NAME, 7, 2)
    assert value["changes"][0]["reason"].isprintable()
    assert value["changes"][1] == {
        "name": "htc/rocky:9",
        "state": "failing",
        "before": "published",
        "reason": "it has no shell",
        "since": 1795946400,
        "owner": "ann@example.org",
    }


def test_hostile_texts_mention_nobody_in_slack_and_link_nowhere() -> None:
    value = json.loads(slack_body(NAME, [HOSTILE_CHANGE]))
    assert not set("<>") & set(value["text"])
    assert "@here" not in value["text"]
    assert "https://" not in value["text"]
    assert (value["mrkdwn"], value["link_names"], value["unfurl_links"]) == (False, False, False)
    assert "htc/rocky:9: failing" in json.loads(slack_body(NAME, [FAILS]))["text"]


@pytest.mark.parametrize(
    "text",
    ["", "ann", "-X@example.org", "ann@example.org\nBcc: x@example.org", "ann@example.org,bob@example.org", '"a b"@example.org'],
)
def test_what_is_no_plain_address_gets_no_mail(text: str) -> None:
    assert not is_address(text)
    with pytest.raises(ValueError, match="is not an address"):
        mail(NAME, [FAILS], to=text, sender=None, now=0)
