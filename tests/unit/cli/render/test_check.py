from __future__ import annotations

from dataclasses import replace
from datetime import date

from publisher.cli.render import check as render_check
from publisher.contract.units import format_size
from publisher.plan.lint import CheckedEntry, CheckVerdict

FINE = CheckedEntry("a/fine:1", 4, CheckVerdict.FINE, "", ("a/fine:1", ".arch/arm64/a/fine:1"), 1_234_567, ("amd64", "arm64"))
WRONG = CheckedEntry("a/wrong:1", 9, CheckVerdict.WRONG, "no such image | `x` 100%\n::error::injected")
DOWN = CheckedEntry("a/down:1", 12, CheckVerdict.UNKNOWN, "no answer")
ALL = [FINE, WRONG, DOWN]


def test_for_people_there_is_a_line_for_each_entry_and_the_totals() -> None:
    lines = render_check.text_lines(ALL, ["a/old:1"], "images.yaml")
    assert lines[0] == "images.yaml:4: fine: a/fine:1: a/fine:1, .arch/arm64/a/fine:1 (amd64, arm64; 1.2 MB compressed)"
    assert lines[1].startswith("images.yaml:9: wrong: a/wrong:1: no such image")
    assert lines[2] == "images.yaml:12: could not tell: a/down:1: no answer"
    assert lines[3] == "no longer in the list: a/old:1"
    assert lines[4] == "1 fine, 1 wrong, 1 could not tell"


def test_a_last_day_that_is_near_is_told_in_every_form() -> None:
    one = replace(FINE, expires=date(2027, 1, 20))
    assert render_check.text_lines([one], [], "images.yaml")[0].endswith("compressed; published until 2027-01-20)")
    assert "published until 2027-01-20" in render_check.markdown([one], [])
    assert render_check.to_json([one], [])["entries"][0]["expires"] == "2027-01-20"  # type: ignore[index]


def test_annotations_stand_at_their_lines_and_cannot_be_forged() -> None:
    assert render_check.github(ALL, "lists/images,1.yaml") == [
        "::error file=lists/images%2C1.yaml,line=9::a/wrong:1: no such image | `x` 100%25%0A::error::injected",
        "::warning file=lists/images%2C1.yaml,line=12::a/down:1: no answer",
        "1 fine, 1 wrong, 1 could not tell",
    ]


def test_the_problems_of_a_list_are_annotations_too() -> None:
    assert render_check.github_problems(["lists/images.yaml:5: UPPER is no name: write it small", "cannot be read"]) == [
        "::error file=lists/images.yaml,line=5::UPPER is no name: write it small",
        "::error::cannot be read",
    ]


def test_the_summary_is_a_table_that_strangers_text_does_not_break() -> None:
    text = render_check.markdown(ALL, ["a/old:1"])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert all(row.count("|") == 6 for row in rows)
    assert "::error" in rows[3]
    assert "`a/fine:1`<br>`.arch/arm64/a/fine:1`" in rows[2]
    assert "`a/old:1`" in text
    assert "Nothing to check." in render_check.markdown([], [])
    assert "- images.yaml:5: bad" in render_check.markdown_problems(["images.yaml:5: bad"])


def test_for_programs_nothing_is_lost() -> None:
    value = render_check.to_json(ALL, ["a/old:1"])
    assert value["dropped"] == ["a/old:1"]
    assert value["entries"][0] == {  # type: ignore[index]
        "name": "a/fine:1",
        "line": 4,
        "verdict": "fine",
        "reason": None,
        "paths": ["a/fine:1", ".arch/arm64/a/fine:1"],
        "platforms": ["amd64", "arm64"],
        "compressed_size": 1_234_567,
        "expires": None,
    }


def test_sizes_are_for_people() -> None:
    assert [format_size(count) for count in (0, 999, 1000, 1_500_000, 2 * 10**13)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "20.0 TB",
    ]
