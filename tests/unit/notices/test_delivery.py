"""Who gets notices, and what becomes of those that cannot be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.errors import NoticeError
from publisher.notices.addresses import JSON_HOOK, MAIL, Webhook
from publisher.notices.changes import StateChange, ToldState
from publisher.notices.delivery import DEADLINE, LIFETIME, MOST_WAITING, deliver
from publisher.notices.memory import Notice, NoticeMemory
from publisher.notices.recipients import Recipients

if TYPE_CHECKING:
    from pathlib import Path

HOOK = Webhook(JSON_HOOK, "https://hooks.example/secret")
ONE, OTHER = (
    StateChange(name, "failing", "", "no tar", 1, owner) for name, owner in (("a:1", "htc"), ("b:1", "bob@example.org"))
)


def notice(recipient: str = "ann@example.org", made: int = 100) -> Notice:
    return Notice(MAIL, recipient, (ONE,), made)


def test_owners_are_told_of_their_own_images_and_operators_and_webhooks_of_all() -> None:
    who = Recipients(["op@example.org"], {"htc": "ann@example.org"}, [HOOK], mail=True)
    told = {(one.channel, one.recipient): [change.name for change in one.changes] for one in who.notices([ONE, OTHER], 100)}
    assert told == {
        (JSON_HOOK, HOOK.id): ["a:1", "b:1"],
        (MAIL, "op@example.org"): ["a:1", "b:1"],
        (MAIL, "ann@example.org"): ["a:1"],
        (MAIL, "bob@example.org"): ["b:1"],
    }
    assert who.notices([], 100) == []


def test_an_owner_without_an_address_gets_no_mail_and_nobody_does_without_a_program() -> None:
    assert Recipients(mail=True).notices([ONE], 100) == []
    assert [one.channel for one in Recipients(["op@example.org"], {}, [HOOK]).notices([OTHER], 100)] == [JSON_HOOK]


def test_a_webhook_is_remembered_and_shown_without_its_url(tmp_path: Path) -> None:
    path = tmp_path / "notices.json"
    memory = NoticeMemory({"a:1": ToldState("failing", 7, "htc")}, Recipients(webhooks=[HOOK]).notices([ONE], 100))
    memory.save(path)
    assert "secret" not in path.read_text() + repr(HOOK)
    assert path.stat().st_mode & 0o777 == 0o600
    assert NoticeMemory.load(path) == memory


def test_a_damaged_memory_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "notices.json"
    assert NoticeMemory.load(path) == NoticeMemory()
    for text in ("{", "[]", '{"told": {"a": {"x": 1}}, "waiting": []}'):
        path.write_text(text)
        assert NoticeMemory.load(path) == NoticeMemory()


def test_what_cannot_be_sent_waits_and_its_recipient_is_not_asked_twice_in_a_run() -> None:
    asked = []

    def send(one: Notice) -> None:
        asked.append(one.recipient)
        if one.recipient.startswith("ann"):
            raise NoticeError("the mail program failed")

    waiting = [notice(), notice("bob@example.org"), notice()]
    left, lines = deliver(waiting, {MAIL: send}, now=200, clock=lambda: 0)
    assert asked == ["ann@example.org", "bob@example.org"]
    assert left == [waiting[0], waiting[2]]
    assert lines == ["a notice could not be sent: the mail program failed", "2 notice(s) wait for the next run"]
    assert deliver(left, {MAIL: lambda _: None}, now=300, clock=lambda: 0) == ([], [])


def test_a_notice_that_is_too_old_or_has_no_channel_any_more_is_given_up() -> None:
    def send(_: Notice) -> None:
        raise NoticeError("the mail program failed")

    assert deliver([notice()], {MAIL: send}, now=101 + LIFETIME, clock=lambda: 0) == ([], [])
    assert deliver([notice()], {}, now=200, clock=lambda: 0) == ([], [])
    many = [notice(f"a{number}@example.org") for number in range(MOST_WAITING + 5)]
    assert deliver(many, {MAIL: send}, now=200, clock=lambda: 0)[0] == many[5:]


def test_slow_recipients_do_not_hold_up_a_run() -> None:
    times = iter([0.0, 0.0, DEADLINE])
    left, _ = deliver([notice(), notice("bob@example.org")], {MAIL: lambda _: None}, now=200, clock=lambda: next(times))
    assert [one.recipient for one in left] == ["bob@example.org"]
