"""The command ``publisher help``: the help of a command, and all settings in one place."""

from __future__ import annotations

import click

from publisher.cli.options import setting_flags
from publisher.errors import UsageError

_INTRODUCTION = (
    "Each setting is a key of publisher.yaml (--config FILE), a flag of every command, and a variable: batch_time, --batch-time, "
    "PUBLISHER_BATCH_TIME. Flags win over variables, and variables over the file. `quotas` is a key of the file only."
)


@click.command("help", short_help="Show the help of a command, or all settings.")
@click.argument("topic", metavar="[COMMAND...|settings]", nargs=-1)
@click.pass_context
def help_command(context: click.Context, topic: tuple[str, ...]) -> None:
    """Show the help of a command, or with `settings` what can be set by publisher.yaml, flags and variables.

    Example: publisher help settings
    """
    if topic == ("settings",):
        click.echo(_settings_text(context), nl=False)
        return
    asked = context.find_root()
    for word in topic:
        group = asked.command
        command = group.get_command(asked, word) if isinstance(group, click.Group) else None
        if command is None:
            raise UsageError(f"there is no command {' '.join(topic)!r}", hint="`publisher help` lists the commands")
        asked = click.Context(command, info_name=word, parent=asked)
    click.echo(asked.get_help())


def _settings_text(context: click.Context) -> str:
    formatter = context.make_formatter()
    formatter.write_text(_INTRODUCTION)
    with formatter.section("Settings"):
        formatter.write_dl([(f"{flag} {metavar}", text) for flag, metavar, text in setting_flags().values()])
    return formatter.getvalue()
