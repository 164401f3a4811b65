from __future__ import annotations

import os
from typing import TYPE_CHECKING

from publisher.resolver.cache import candidates
from publisher.resolver.config.commandline import CommandLine
from publisher.resolver.errors import CacheError
from publisher.resolver.host import all_users, cache_admin
from publisher.resolver.system.notes import Warnings

if TYPE_CHECKING:
    from pathlib import Path

    from publisher.resolver.config.settings import ResolverSettings

ME = os.geteuid()


def test_each_user_has_his_own_cache_where_the_setting_says(tmp_path: Path) -> None:
    ours = tmp_path / f"of-{ME}.d" / "images"
    for path in (
        ours,
        tmp_path / "of-x.d/images",
        tmp_path / f"of-{ME + 1}.d/images",
        tmp_path / f"{ME}",
        tmp_path / f"of-0{ME}.d",
    ):
        path.mkdir(parents=True)
    assert all_users.find_caches(f"{tmp_path}/of-{{uid}}.d/images") == [(ME, str(ours))], "another's is made by the wrong one"
    assert all_users.find_caches(f"{tmp_path}/{{uid}}") == [(ME, f"{tmp_path}/{ME}")]
    assert all_users.find_caches(f"{tmp_path}/of-{{uid}}.d/images/{{uid}}") == []
    assert all_users.find_caches(f"{tmp_path}/absent/{{uid}}") == []
    (tmp_path / f"link-{ME}").symlink_to(ours)
    assert all_users.find_caches(f"{tmp_path}/link-{{uid}}") == []


def settings_of(*words: str) -> ResolverSettings:
    key = ("--public-key", "/absent/key.pub")
    return CommandLine(["cache", "statistics", "--repository", "/cvmfs/images.example.org", *key, *words]).settings({})


def test_unpublished_images_that_jobs_of_all_users_got_are_added_up(tmp_path: Path) -> None:
    cache = tmp_path / f"{ME}"
    cache.mkdir(mode=0o700)
    for image in ("docker://x/tool:1", "oras://x/other:1", "docker://x/tool:1"):
        candidates.count(str(cache), image)
    found = cache_admin.run(["statistics"], settings_of("--cache", f"{tmp_path}/{{uid}}"), Warnings())
    assert found["ImageCandidates"] == "docker://x/tool:1 (2), oras://x/other:1 (1)"
    assert all_users.caches(settings_of("--cache", str(cache))) == [(ME, str(cache))]


def test_what_fails_for_one_is_said(tmp_path: Path) -> None:
    (tmp_path / str(ME)).mkdir()
    notes = Warnings()

    def fail(path: str) -> None:
        raise CacheError(f"not {path}")

    assert all_users.for_each(f"{tmp_path}/{{uid}}", fail, notes) == []
    assert notes.warnings == [f"{tmp_path}/{ME}: not {tmp_path}/{ME}"]
    assert all_users.for_each(f"{tmp_path}/{{uid}}", lambda path: [path], notes) == [(ME, [f"{tmp_path}/{ME}"])]
