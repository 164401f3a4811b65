"""Which files a sync writes: those that changed, and no more of them for 10,000 images than for 20."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from publisher.errors import OriginError
from publisher.page import places, render
from publisher.page.details import BuildChanges
from publisher.page.memory import PageMemory
from publisher.page.targets import PageTarget
from publisher.page.writer import DEADLINE, PageReport, write_page, write_running
from tests.support.page.hostile import LIST_WITH_SCRIPT, make_hostile
from tests.support.page.world import LIST, NAME, NOW, STATES, PageWorld, outcomes, record, version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


ATOM = "{http://www.w3.org/2005/Atom}"


class Kept(PageTarget):
    """A target in memory, which fails at the path ``broken``."""

    def __init__(self, name: str = "kept") -> None:
        self.name = name
        self.files: dict[str, bytes] = {}
        self.broken = ""

    def write(self, path: str, content: bytes) -> None:
        if path == self.broken:
            raise OriginError(f"{path}: the origin does not answer")
        self.files[path] = content

    def remove(self, path: str) -> None:
        del self.files[path]

    def text(self, path: str) -> str:
        return self.files[path].decode()


class Page:
    """The page of a world, with its memory."""

    def __init__(self, where: Path, count: int = 20, text: str = LIST) -> None:
        self.world = PageWorld(count, text)
        self.target = Kept()
        self.memory = where / "page.sqlite"

    def write(self, clock: Callable[[], float] = lambda: 0.0) -> PageReport:
        with PageMemory(self.memory) as memory:
            return write_page(self.target, memory, self.world.content, clock)

    def image(self, name: str = "htc/rocky:9") -> str:
        return self.target.text(places.image_path(name))


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(tmp_path)


def sync(page: Page) -> None:
    """Let the next run pass, with its times."""
    page.world.now += 900
    known = page.world.snapshot.outcomes
    new = replace(known, started=page.world.now - 60, finished=page.world.now)
    page.world.snapshot = replace(page.world.snapshot, outcomes=new)


def test_every_image_has_a_page_and_a_badge_and_a_row_in_a_shard(page: Page) -> None:
    report = page.write()
    assert (report.error, report.waiting, report.removed) == (None, 0, [])
    assert set(report.written) == set(page.target.files)
    for name in STATES.keys() - {"htc/never:1"}:
        assert name in page.image(name)
        assert name in page.target.text(places.badge_path(name))
        assert f'["{name}",' in page.target.text(places.shard_path(0))


@pytest.mark.parametrize("count", [20, 400])
def test_a_sync_that_changes_one_image_writes_a_constant_number_of_files(tmp_path: Path, count: int) -> None:
    page = Page(tmp_path, count)
    page.write()
    sync(page)
    page.world.rebuild("htc/rocky:9")
    shard = places.shard_path(places.shard_number("htc/rocky:9", places.shard_count(count)))
    about_all = {"images.json", "feed.xml", "health.html", "index.html", "data/status.js", "data/running.js"}
    assert set(page.write().written) == {"image/htc/rocky:9.html", shard, *about_all}


def test_a_sync_that_changes_nothing_writes_only_its_times(page: Page) -> None:
    page.write()
    sync(page)
    assert set(page.write().written) == {"health.html", "index.html", "data/status.js", "data/running.js"}


def test_files_of_names_that_nothing_knows_any_more_are_removed(page: Page) -> None:
    page.write()
    records = {name: one for name, one in page.world.snapshot.records.items() if name != "htc/blocked:1"}
    page.world.snapshot = replace(page.world.snapshot, records=records)
    page.world.image_list = replace(page.world.image_list, entries=())
    assert page.write().removed[:2] == ["badge/htc/blocked:1.svg", "badge/htc/expired:1.svg"]
    assert "image/htc/blocked:1.html" not in page.target.files


def test_another_place_gets_all_files(page: Page) -> None:
    page.write()
    page.target = Kept("another")
    page.write()
    assert "image/htc/rocky:9.html" in page.target.files


def test_what_was_written_before_a_failure_is_not_written_again(page: Page) -> None:
    page.target.broken = "image/htc/new:1.html"
    report = page.write()
    assert "does not answer" in str(report.error)
    page.target.broken = ""
    again = page.write()
    assert again.error is None
    assert not set(report.written) & set(again.written)
    assert set(page.target.files) == {*report.written, *again.written}


def test_images_wait_for_the_next_sync_where_writing_takes_long_but_the_first_page_does_not(page: Page) -> None:
    times = itertools.count(0, DEADLINE / 10)
    report = page.write(lambda: next(times))
    assert report.waiting > 10
    assert "index.html" in report.written
    assert page.write().waiting == 0
    assert "image/r/tidyverse:0.13.html" in page.target.files


def test_the_image_page_answers_everything_about_an_image(page: Page) -> None:
    old = page.world.snapshot.records["htc/rocky:9"].platforms["amd64"][0].digest
    page.write()
    page.world.now += 900
    page.world.rebuild("htc/rocky:9")
    new = page.world.snapshot.records["htc/rocky:9"].platforms["amd64"][0].digest
    config = {
        "Labels": {"vendor": "HTC"},
        "Env": ["LANG=C"],
        "Entrypoint": ["/bin/sh", "-c", "a b"],
        "User": "7",
        "WorkingDir": "/w",
    }
    page.world.configs[new] = json.dumps({"created": "2026-11-29T10:00:00Z", "config": config}).encode()
    page.world.differences[old, new] = BuildChanges(old, 1, 2, 3, -4000, (("+", "usr/bin/new", 1000), ("-", "usr/bin/old", 5000)))
    page.write()
    shown = page.image()
    for text in (
        "docker://hub.opensciencegrid.org/htc/rocky:9",
        new,
        "arm64",
        "vendor</dt><dd>HTC",
        "LANG=C",
        "/bin/sh -c &#39;a b&#39;",
        "1 path added, 2 removed, 3 changed; the files shrank by 4.0 kB",
        "/usr/bin/new",
        "<b>updated</b> for amd64",
        "<b>published</b> for amd64",
        "<dt>Owner</dt><dd>htc</dd>",
        f"container_image = /cvmfs/{NAME}/htc/rocky:9",
        "osdf:///ospool/images/sif/",
    ):
        assert text in shown, text


def test_signers_and_attachments_are_shown(page: Page) -> None:
    attached = [{"digest": "sha256:a", "kind": "SBOM", "type": "application/spdx+json"}]
    signed = version("signed", signed={"identity": "ci@example.org", "issuer": "https://example.org"}, attached=attached)
    by_key = version("by key", signed={"key": "abc"})
    records = {one.name: one for one in (record("htc/signed:1", signed), record("htc/key:1", by_key))}
    page.world.snapshot = page.world.snapshot.with_records(records)
    page.write()
    assert "amd64: signed by ci@example.org; the publisher verified it" in page.image("htc/signed:1")
    assert "amd64: SBOM sha256:a (application/spdx+json)" in page.image("htc/signed:1")
    assert "amd64: signed by the key abc" in page.image("htc/key:1")


def test_an_image_that_cannot_be_used_has_no_lines_for_a_submit_file(page: Page) -> None:
    page.write()
    for name in ("htc/blocked:1", "htc/new:1", "htc/failing:1", "htc/expired:1", "htc/gone:1"):
        assert "Jobs cannot use it now" in page.image(name)
        assert "container_image" not in page.image(name)
    assert "It can be used until 2026-12-12 15:00 UTC" in page.image("htc/expiring:1").replace("\n", "").replace(
        '<time datetime="2026-12-12T15:00:00Z">', ""
    ).replace("</time>", "")
    assert "4; again after" in page.image("htc/failing:1")


def test_the_first_page_says_when_the_syncs_are_and_what_needs_attention(page: Page) -> None:
    page.world.snapshot = replace(page.world.snapshot, outcomes=replace(outcomes(), problem="the disk is full"))
    page.write()
    shown = page.target.text("index.html")
    assert "2026-11-29 14:55 UTC" in shown
    assert "2026-11-29 15:10 UTC" in shown
    assert "the last sync ended early: the disk is full" in shown
    health = page.target.text("health.html")
    assert "its registry does not have it" in health
    assert "took 240 s" in health.replace("4 min", "240 s")
    assert "serial 8" in health


def test_plots_appear_with_the_second_day(page: Page) -> None:
    page.write()
    assert "Plots appear" in page.target.text("health.html")
    page.world.now += 8 * 86400
    page.world.rebuild("htc/rocky:9")
    page.write()
    page.world.now += 8 * 86400
    page.world.rebuild("htc/rocky:9")
    page.write()
    shown = page.target.text("health.html")
    for text in ("Number of images on 2026-12-15: images 19", "Size of what is published", "90th percentile", "docker.io"):
        assert text in shown


def test_an_empty_publication_has_a_page_too(page: Page) -> None:
    page.world = PageWorld.empty()
    assert page.write().error is None
    assert "No image is listed or published yet" in page.target.text("index.html")
    assert "Nothing" not in page.target.text("index.html")
    assert json.loads(page.target.text("images.json"))["images"] == []


def test_images_json_has_every_image(page: Page) -> None:
    page.write()
    found = {one["name"]: one for one in json.loads(page.target.text("images.json"))["images"]}
    assert {name: found[name]["state"] for name in STATES if name in found} == {
        name: "published" if state == "building" else state for name, state in STATES.items() if name != "htc/never:1"
    }
    assert found["htc/new:1"]["since"] is None


def test_the_feed_is_valid_atom_with_the_newest_change_first(page: Page) -> None:
    page.write()
    page.world.now += 900
    page.world.rebuild("htc/rocky:9")
    page.write()
    feed = ET.fromstring(page.target.text("feed.xml"))  # noqa: S314 - our own
    entries = feed.findall(f"{ATOM}entry")
    first = entries[0]
    assert first.findtext(f"{ATOM}title") == "htc/rocky:9: updated for amd64"
    assert first.findtext(f"{ATOM}updated") == feed.findtext(f"{ATOM}updated") == "2026-11-29T15:15:00Z"
    link = first.find(f"{ATOM}link")
    assert link is not None
    assert link.get("href") == "image/htc/rocky%3A9.html"
    ids = [entry.findtext(f"{ATOM}id") for entry in entries]
    assert len(set(ids)) == len(ids) > 20


def test_the_run_under_way_is_told_until_the_page_is_written_again(page: Page) -> None:
    write_running(page.target, {"htc/new:1": "waiting"}, NOW)
    assert (
        page.target.text("data/running.js")
        == f'window.publisherRunning({{"started":{NOW},"steps":{{"htc/new:1":"waiting"}}}});\n'
    )
    page.write()
    assert '"steps":{}' in page.target.text("data/running.js")


def test_long_names_have_pages_too(page: Page) -> None:
    name = "htc/" + "x" * 240 + ":1"
    page.world.snapshot = page.world.snapshot.with_records({name: record(name)})
    page.write()
    assert name in page.image(name)
    assert places.image_path(name) in page.target.text("index.html")


# --- texts of strangers


class _Elements(HTMLParser):
    """Collects what a browser would run: scripts, event handlers, and URLs of schemes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name.startswith("on") or (name in {"href", "src"} and re.match(r"\s*[a-z]+:", value or "") and value != "data:,"):
                self.found.append(f"{tag} {name}={value}")
        if tag in {"script", "iframe", "object"} and not dict(attrs).get("src", "").startswith(("page.js", "../")):  # type: ignore[union-attr]
            self.found.append(tag)


def texts(page: Page) -> Iterator[tuple[str, str]]:
    for path, content in page.target.files.items():
        if path not in render.ASSETS:
            yield path, content.decode()


def test_texts_of_strangers_never_become_script(tmp_path: Path) -> None:
    page = Page(tmp_path, text=LIST_WITH_SCRIPT)
    make_hostile(page.world)
    assert page.write().error is None
    for path, text in texts(page):
        if path.endswith(".html"):
            parser = _Elements()
            parser.feed(text)
            assert parser.found == [], path
        elif path.endswith((".svg", ".xml")):
            tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(text).iter()}  # noqa: S314 - our own
            assert tags <= {
                "svg",
                "title",
                "rect",
                "g",
                "text",
                "feed",
                "id",
                "link",
                "updated",
                "author",
                "name",
                "entry",
                "summary",
            }
        elif path.endswith(".js"):
            function, _, value = text.removeprefix("window.").partition("(")
            assert function in {"publisherStatus", "publisherShard", "publisherRunning"}
            json.loads(value.removesuffix(");\n"))
            assert text.isascii()
    shown = page.image("htc/bad:1")
    assert "&lt;script&gt;alert(1)" in shown
    assert "{{7*7}}" in shown.replace("&#39;", "'")


def test_texts_of_strangers_cannot_reorder_or_hide_text(tmp_path: Path) -> None:
    page = Page(tmp_path)
    make_hostile(page.world)
    page.write()
    for path, text in texts(page):
        assert not {character for character in text if not character.isprintable()} - {"\n"}, path
    assert "\\x202e" in page.image("htc/bad:1")
