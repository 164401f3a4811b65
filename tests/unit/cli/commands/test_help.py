"""``publisher help``: a command's help is short, and the settings stand in one place."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from publisher.cli.main import publisher
from publisher.errors import ListError, UsageError
from publisher.settings.settings import PublisherSettings

KEYS = {field.alias or name for name, field in PublisherSettings.model_fields.items()} - {"quotas"}


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(publisher, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_help_of_settings_lists_every_flag_once_with_its_default() -> None:
    text = shown("help", "settings")
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert sorted(listed) == sorted(f"--{key.replace('_', '-')}" for key in KEYS)
    assert "[default: 30 min]" in text


def test_help_of_a_command_has_its_own_options_and_leads_to_the_settings() -> None:
    text = shown("sync", "--help")
    assert {"--rebind", "--allow-mass-removal", "--repository", "--config"} <= set(text.split())
    assert "--batch-time" not in text
    assert "publisher help settings" in text


def test_hidden_settings_are_still_flags() -> None:
    with pytest.raises(ListError) as refused:
        CliRunner().invoke(publisher, ["gc", "--batch-time=soon"], catch_exceptions=False)
    assert [problem.split(" is not")[0] for problem in refused.value.problems] == ["--batch-time: 'soon'"]


def test_help_shows_the_help_of_commands_and_of_their_subcommands() -> None:
    assert shown("help", "sync") == shown("sync", "--help")
    assert shown("help", "keys", "new") == shown("keys", "new", "--help")
    assert shown("help") == shown("--help")


@pytest.mark.parametrize("topic", [("synk",), ("keys", "old"), ("sync", "settings")])
def test_help_of_an_unknown_command_is_wrong_usage(topic: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="there is no command"):
        CliRunner().invoke(publisher, ["help", *topic], catch_exceptions=False)
