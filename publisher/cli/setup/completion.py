"""Shell completion: the script for a shell. ``publisher/cli/options.py`` completes names of images."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_PUBLISHER_COMPLETE"
_SHELLS = ("bash", "zsh", "fish")
_WITH_COLONS = "# Names of images have colons, at which bash would split them.\nCOMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n"


@click.command("completion", short_help="Print the completion script for a shell.")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, flags and names of images in SHELL.

    Example: source <(publisher completion bash)
    """
    click.echo(completion_script(context.find_root().command, shell), nl=False)


def completion_script(command: click.Command, shell: str) -> str:
    """Return the script for a shell: ``bash``, ``zsh`` or ``fish``. No shell is started for it."""
    kind: Any = get_completion_class(shell)
    made = kind(command, {}, "publisher", _VARIABLE)
    script = str(made.source_template % made.source_vars()).lstrip()
    return _WITH_COLONS + script if shell == "bash" else script
