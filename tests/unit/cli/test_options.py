from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from publisher.cli import options

if TYPE_CHECKING:
    from publisher.settings.settings import PublisherSettings

_LISTS = {
    "--insecure-registry": ("insecure_registries", ("a:5000", "b:80")),
    "--origin-hosts": ("origin_hosts", ("a:5000", "b:80")),
    "--trusted-keys": ("trusted_keys", ("/a.pub", "/b.pub")),
    "--allowed-networks": ("allowed_networks", ("10.1.0.0/16", "10.2.0.0/16")),
    "--mirrors": ("mirrors", ("docker.io=https://a.example", "quay.io=https://b.example")),
    "--rates": ("rates", ("docker.io=1", "quay.io=2")),
    "--notice-mail": ("notice_mail", ("a@example.org", "b@example.org")),
    "--notice-owners": ("notice_owners", ("a=a@example.org", "b=b@example.org")),
    "--caches": ("caches", ("a:5000", "b:80")),
    "--webhooks": ("webhooks", ("https://a.example/1", "slack:https://b.example/2")),
}


def settings(*arguments: str) -> PublisherSettings:
    found: list[PublisherSettings] = []

    @click.command
    @options.common
    def command(settings: PublisherSettings) -> None:
        found.append(settings)

    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


@pytest.mark.parametrize("flag", _LISTS)
def test_flags_of_lists_are_repeated_or_have_commas(flag: str) -> None:
    attribute, (one, other) = _LISTS[flag]
    repeated = getattr(settings(flag, one, flag, other), attribute)
    assert len(repeated) == 2
    assert getattr(settings(flag, f"{one},{other}"), attribute) == repeated
    assert getattr(settings(flag, f"{one}, {other}"), attribute) == repeated
    assert settings(flag, one) != settings(flag, one, flag, other)


def test_all_flags_of_lists_say_so() -> None:
    flags = {flag: text for flag, metavar, text in options.setting_flags().values() if metavar.endswith(",…")}
    assert {*_LISTS, "--root-keys", "--cosigning-keys", "--accepted-tools", "--further-origins"} == flags.keys()
    assert all("can be repeated, or with commas between" in text for text in flags.values())
