"""The result of a check: for people, for a pull request's annotations and its comment, for programs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.plan.lint import CheckedEntry, CheckVerdict, count_verdicts

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLACED = re.compile(r"(?P<file>.+?):(?P<line>[0-9]+): (?P<text>.*)", re.DOTALL)
_LEVELS = {CheckVerdict.WRONG: "error", CheckVerdict.UNKNOWN: "warning"}
_MARKS = {CheckVerdict.FINE: "ok", CheckVerdict.WRONG: "**wrong**", CheckVerdict.UNKNOWN: "could not tell"}


def lines(checked: Sequence[CheckedEntry], dropped: Sequence[str], file: str) -> list[str]:
    """For people: a line for each entry, then the totals."""
    found = [f"{file}:{one.line}: {one.verdict.value}: {one.name}{_rest(one)}" for one in checked]
    found += [f"no more in the list: {name}" for name in dropped]
    return [*found, _totals(checked)]


def github(checked: Sequence[CheckedEntry], file: str) -> list[str]:
    """GitHub's workflow commands (docs.github.com, "Workflow commands for GitHub Actions"), one for each finding."""
    found = [
        _annotation(_LEVELS[one.verdict], file, one.line, f"{one.name}: {one.reason}")
        for one in checked
        if one.verdict in _LEVELS
    ]
    return [*found, _totals(checked)]


def github_problems(problems: Sequence[str]) -> list[str]:
    """The problems of a list that could not be read, ``file:line: text`` each, as GitHub's annotations."""
    found = []
    for problem in problems:
        placed = _PLACED.fullmatch(problem)
        file, line, text = placed.group("file", "line", "text") if placed else ("", "0", problem)
        found.append(_annotation("error", file, int(line), text))
    return found


def markdown(checked: Sequence[CheckedEntry], dropped: Sequence[str]) -> str:
    """For a comment on a pull request."""
    rows = ["| image | found | platforms | compressed | published as |", "|---|---|---|---|---|"]
    for one in checked:
        found = _MARKS[one.verdict] + (f": {_cell(one.reason)}" if one.reason else "")
        found += f", published until {one.expires}" if one.expires is not None else ""
        paths = "<br>".join(f"`{_cell(path)}`" for path in one.paths[:5]) + (" …" if len(one.paths) > 5 else "")  # noqa: PLR2004
        rows.append(f"| `{_cell(one.name)}` | {found} | {', '.join(one.platforms)} | {format_size(one.size)} | {paths} |")
    parts = [f"**{_totals(checked)}**", "\n".join(rows) if checked else "Nothing to check."]
    if dropped:
        parts.append("No more in the list: " + ", ".join(f"`{_cell(name)}`" for name in dropped))
    return "\n\n".join(parts) + "\n"


def markdown_problems(problems: Sequence[str]) -> str:
    """The problems of a list that could not be read, for a comment."""
    return "\n".join([f"**{len(problems)} problem(s) in the list**", "", *(f"- {_cell(problem)}" for problem in problems)]) + "\n"


def to_json(checked: Sequence[CheckedEntry], dropped: Sequence[str]) -> dict[str, object]:
    """For programs."""
    entries = [
        {
            "name": one.name,
            "line": one.line,
            "verdict": one.verdict.value,
            "reason": one.reason or None,
            "paths": list(one.paths),
            "platforms": list(one.platforms),
            "compressed_size": one.size,
            "expires": None if one.expires is None else str(one.expires),
        }
        for one in checked
    ]
    return {"entries": entries, "dropped": list(dropped)}


def _rest(one: CheckedEntry) -> str:
    if one.reason:
        return f": {one.reason}"
    where = ", ".join(one.paths) or "as a SIF alone"
    last = "" if one.expires is None else f"; published until {one.expires}"
    return f": {where} ({', '.join(one.platforms)}; {format_size(one.size)} compressed{last})"


def _totals(checked: Sequence[CheckedEntry]) -> str:
    found = count_verdicts(checked)
    return ", ".join(f"{found[verdict]} {verdict.value}" for verdict in CheckVerdict if found[verdict]) or "nothing to check"


def _annotation(level: str, file: str, line: int, text: str) -> str:
    place = f" file={_property(file)},line={line}" if file else ""
    return f"::{level}{place}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _cell(text: str) -> str:
    """Text of strangers within a table: no row, code or link of its own."""
    return re.sub(r"[|`<>\[\]\r\n]", " ", text)
