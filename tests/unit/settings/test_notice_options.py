from __future__ import annotations

import pytest

from publisher.errors import ListError
from publisher.notices.addresses import Webhook
from publisher.settings.sources import load_settings


def test_addresses_owners_and_webhooks_are_read_from_flags() -> None:
    settings = load_settings(
        {
            "state": "/s",
            "notice_mail": "op@example.org, two@example.org",
            "notice_owners": "htc=ann@example.org",
            "webhooks": "https://a.example/1,slack:https://b.example/2",
            "mail_command": "/usr/sbin/sendmail -t -i",
            "mail_from": "images@example.org",
        },
        {},
    )
    assert settings.notice_mail == ("op@example.org", "two@example.org")
    assert settings.notice_owners == {"htc": "ann@example.org"}
    assert settings.webhooks == (Webhook("json", "https://a.example/1"), Webhook("slack", "https://b.example/2"))


def test_they_are_read_from_publisher_yaml(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("etc") / "publisher.yaml"
    path.write_text("notice_mail: [op@example.org]\nnotice_owners: {htc: ann@example.org}\nwebhooks: ['https://a.example/1']\n")
    settings = load_settings({"config": str(path), "state": "/s"}, {})
    assert (settings.notice_mail, dict(settings.notice_owners)) == (("op@example.org",), {"htc": "ann@example.org"})
    assert settings.webhooks == (Webhook("json", "https://a.example/1"),)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("notice_mail", "nobody"),
        ("notice_mail", 7),
        ("notice_owners", "htc"),
        ("webhooks", "hooks.example/secret"),
        ("webhooks", "slack:https://[::/secret"),
        ("mail_command", " "),
        ("mail_from", "a b@example.org"),
    ],
)
def test_wrong_values_are_refused_without_repeating_secrets(key: str, value: object) -> None:
    with pytest.raises(ListError) as refused:
        load_settings({"state": "/s", key: value}, {})
    (problem,) = refused.value.problems
    assert problem.startswith(f"--{key.replace('_', '-')}: ")
    assert "secret" not in problem
