"""A program that prints a text, and remembers how it was called."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SOURCE = """\
#!{python} -IS
import json, os, sys
with open({called!r}, "w") as file:
    json.dump({{"arguments": sys.argv[1:], "home": os.environ.get("HOME"), "uid": os.geteuid()}}, file)
sys.stderr.write({stderr!r})
sys.stdout.write({printed!r})
sys.exit({status})
"""


def printing_program(path: Path, printed: str, *, stderr: str = "", status: int = 0) -> Path:
    """Write a program at ``path`` that prints a text; ``PATH.called`` then has its arguments, HOME and user as JSON."""
    called = path.with_name(f"{path.name}.called")
    called.write_text(json.dumps({}))
    called.chmod(0o666)
    source = _SOURCE.format(python=sys.executable, called=str(called), printed=printed, stderr=stderr, status=status)
    path.write_text(source)
    path.chmod(0o755)
    return path
