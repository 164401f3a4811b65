"""Renders the result of a check: as text, as annotations and comment of a pull request, and as JSON."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from publisher.contract.units import format_size
from publisher.plan.lint import CheckedEntry, CheckVerdict, count_verdicts

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOCATED_PROBLEM = re.compile(r"(?P<file>.+?):(?P<line>[0-9]+): (?P<text>.*)", re.DOTALL)
_LEVELS = {CheckVerdict.WRONG: "error", CheckVerdict.UNKNOWN: "warning"}
_MARKS = {CheckVerdict.FINE: "ok", CheckVerdict.WRONG: "**wrong**", CheckVerdict.UNKNOWN: "could not tell"}
_MAX_PATHS = 5  # paths of one image that the comment shows


def text_lines(checked: Sequence[CheckedEntry], removed: Sequence[str], file: str) -> list[str]:
    """Return a line for each entry of ``file``, a line for each name that left the list, and the totals."""
    lines = [f"{file}:{entry.line}: {entry.verdict.value}: {entry.name}{_details(entry)}" for entry in checked]
    lines += [f"no longer in the list: {name}" for name in removed]
    return [*lines, _totals(checked)]


def github(checked: Sequence[CheckedEntry], file: str) -> list[str]:
    """Return a GitHub workflow command (see docs.github.com) for each problem, which annotates its line, and the totals."""
    annotations = [
        _annotation(_LEVELS[entry.verdict], file, entry.line, f"{entry.name}: {entry.reason}")
        for entry in checked
        if entry.verdict in _LEVELS
    ]
    return [*annotations, _totals(checked)]


def github_problems(problems: Sequence[str]) -> list[str]:
    """Return an annotation for each problem (``file:line: text``) of a list that is not valid."""
    annotations = []
    for problem in problems:
        located = _LOCATED_PROBLEM.fullmatch(problem)
        file, line, text = located.group("file", "line", "text") if located else ("", "0", problem)
        annotations.append(_annotation("error", file, int(line), text))
    return annotations


def markdown(checked: Sequence[CheckedEntry], removed: Sequence[str]) -> str:
    """Return the result as Markdown, for a comment on a pull request."""
    rows = ["| image | result | platforms | compressed | published as |", "|---|---|---|---|---|"]
    for entry in checked:
        result = _MARKS[entry.verdict] + (f": {_cell(entry.reason)}" if entry.reason else "")
        result += f", published until {entry.expires}" if entry.expires is not None else ""
        paths = "<br>".join(f"`{_cell(path)}`" for path in entry.paths[:_MAX_PATHS])
        paths += " …" if len(entry.paths) > _MAX_PATHS else ""
        size = format_size(entry.size) if entry.size else ""
        rows.append(f"| `{_cell(entry.name)}` | {result} | {', '.join(entry.platforms)} | {size} | {paths} |")
    parts = [f"**{_totals(checked)}**", "\n".join(rows) if checked else "Nothing to check."]
    if removed:
        parts.append("No longer in the list: " + ", ".join(f"`{_cell(name)}`" for name in removed))
    return "\n\n".join(parts) + "\n"


def markdown_problems(problems: Sequence[str]) -> str:
    """Return the problems of a list that is not valid as Markdown, for a comment on a pull request."""
    return "\n".join([f"**{len(problems)} problem(s) in the list**", "", *(f"- {_cell(problem)}" for problem in problems)]) + "\n"


def to_json(checked: Sequence[CheckedEntry], removed: Sequence[str]) -> dict[str, object]:
    """Return the result as JSON values."""
    entries = [
        {
            "name": entry.name,
            "line": entry.line,
            "verdict": entry.verdict.value,
            "reason": entry.reason or None,
            "paths": list(entry.paths),
            "platforms": list(entry.platforms),
            "compressed_size": entry.size,
            "expires": None if entry.expires is None else str(entry.expires),
        }
        for entry in checked
    ]
    return {"entries": entries, "dropped": list(removed)}


def _details(entry: CheckedEntry) -> str:
    if entry.reason:
        return f": {entry.reason}"
    where = ", ".join(entry.paths) or "as a SIF only"
    expiry = "" if entry.expires is None else f"; published until {entry.expires}"
    return f": {where} ({', '.join(entry.platforms)}; {format_size(entry.size)} compressed{expiry})"


def _totals(checked: Sequence[CheckedEntry]) -> str:
    counts = count_verdicts(checked)
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in CheckVerdict if counts[verdict]) or "nothing to check"


def _annotation(level: str, file: str, line: int, text: str) -> str:
    location = f" file={_escape_property(file)},line={line}" if file else ""
    return f"::{level}{location}::{_escape_data(text)}"


def _escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")


def _cell(text: str) -> str:
    """Return text without the characters that could begin a row, code or a link: it may come from a third party."""
    return re.sub(r"[|`<>\[\]\r\n]", " ", text)
