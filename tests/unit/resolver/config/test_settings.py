from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from publisher.resolver.config.settings import LISTS, PATHS, SETTINGS, TABLE, ResolverSettings, gather
from publisher.resolver.errors import ResolverUsageError

if TYPE_CHECKING:
    from pathlib import Path

FILE = """\
# comment
[resolver]
repository = /srv/images.example.org
origin =
    osdf
    ; comment between
    https://origin.example.org/images?directread
public-key = /etc/keys
    keys/new.pem
cache=cache
form = sif
"""


def settings(**given: str | list[str]) -> ResolverSettings:
    named = {name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in given.items()}
    return ResolverSettings(named, "amd64")


def test_a_file_has_all_settings_and_its_paths_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resolver.ini").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    for path in ("resolver.ini", str(tmp_path / "resolver.ini")):
        assert gather({}, {}, path) == {
            "repository": ["/srv/images.example.org"],
            "origin": [f"{tmp_path}/osdf", "https://origin.example.org/images?directread"],
            "public-key": ["/etc/keys", f"{tmp_path}/keys/new.pem"],
            "cache": [f"{tmp_path}/cache"],
            "form": ["sif"],
        }


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "resolver.ini").write_text("[resolver]\nform = sif\narch = arm64\norigin = /a\n")
    environ = {
        "IMAGE_RESOLVER_CONFIG": str(tmp_path / "resolver.ini"),
        "IMAGE_RESOLVER_FORM": "auto",
        "IMAGE_RESOLVER_ORIGIN": "/b  http://c",
        "IMAGE_RESOLVER_REPOSITORY_NAME": "r",
        "IMAGE_RESOLVER_CACHE": "",
    }
    assert gather({"form": ["sandbox"]}, environ, None) == {
        "form": ["sandbox"],
        "arch": ["arm64"],
        "origin": ["/b", "http://c"],
        "repository-name": ["r"],
    }
    (tmp_path / "other.ini").write_text("[resolver]\narch = amd64\n")
    assert gather({}, environ, str(tmp_path / "other.ini"))["arch"] == ["amd64"]
    assert gather({}, {}, None) == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[resolver]\n\nforn = sif\n", "line 3: unknown setting 'forn' .did you mean form"),
        ("[resolver]\nform\n", "line 2: not a setting"),
        ("form = sif\n", "line 1: form is outside the section"),
        ("[publisher]\n", r"line 1: unknown section \[publisher\]"),
        ("[resolver]\nform = sif\nform = auto\n", "line 3: form is set twice"),
        ("[resolver]\n  form = sif\n  [other]\n", r"line 3: unknown section \[other\]"),
        ("\xff", "cannot read"),
    ],
)
def test_an_error_in_the_file_is_reported_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "resolver.ini"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResolverUsageError, match=why) as failure:
        gather({}, {}, str(path))
    assert failure.value.exit_code == 2
    assert str(path) in str(failure.value)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ResolverUsageError, match=r"cannot read the configuration .*absent\.ini"):
        gather({}, {}, str(tmp_path / "absent.ini"))


def test_the_repository_determines_its_name_and_the_sources_of_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = settings(repository="demo/cvmfs/", origin=["osdf/", "https://o.example.org/images/?directread"], cache="cache")
    assert (found.name, found.repository, found.cache) == ("cvmfs", f"{tmp_path}/demo/cvmfs", f"{tmp_path}/cache")
    assert found.roots == ("/cvmfs/cvmfs", f"{tmp_path}/demo/cvmfs", "demo/cvmfs")
    assert found.manifests == (
        f"{tmp_path}/demo/cvmfs/.publisher",
        "osdf/manifest",
        "https://o.example.org/images/manifest?directread",
    )
    assert (found.form, found.arch, found.keys) == ("auto", "amd64", ())


def test_a_name_alone_means_the_mounted_repository() -> None:
    found = settings(repository_name="images.example.org")
    assert (found.repository, found.cache) == ("/cvmfs/images.example.org", None)
    assert found.roots == ("/cvmfs/images.example.org",)
    assert found.manifests == ("/cvmfs/images.example.org/.publisher",)


def test_given_values_replace_the_defaults() -> None:
    found = settings(
        repository="/mnt/x", repository_name="images.example.org", manifest=["/m", "http://m"], arch="arm64", form="sif"
    )
    assert (found.name, found.repository, found.manifests) == ("images.example.org", "/mnt/x", ("/m", "http://m"))
    assert (found.arch, found.form) == ("arm64", "sif")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\nb"])
def test_an_invalid_repository_name_is_refused(name: str) -> None:
    with pytest.raises(ResolverUsageError, match="no valid repository name"):
        settings(repository_name=name)
    with pytest.raises(ResolverUsageError, match="no valid repository name"):
        settings(repository="/")


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ResolverUsageError, match="'squash' must be one of auto, sandbox, sif"):
        settings(repository="/mnt/x", form="squash")


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in LISTS])
def test_a_single_value_cannot_be_given_twice(name: str) -> None:
    given = {"repository": ["/mnt/x"], name: ["/a", "/b"]}
    with pytest.raises(ResolverUsageError, match=f"{name} has 2 values"):
        ResolverSettings(given, "amd64")


def test_a_hosts_policy_has_defaults_and_its_files_are_in_the_cache(tmp_path: Path) -> None:
    found = settings(repository="/mnt/x", cache=f"{tmp_path}/cache")
    assert (found.prefer, found.never, found.unknown, found.default_image) == ("sandbox", "none", "pass", "")
    assert (found.deadline, found.trace, found.trace_size) == (1200.0, None, 10_000_000)
    assert found.facts == f"{tmp_path}/cache/facts.json"
    assert settings(repository="/mnt/x").facts is None


def test_paths_may_name_the_user() -> None:
    found = settings(repository="/mnt/x", cache="/c/{uid}", trace="/log/{uid}.json", facts="/f/{uid}")
    assert (found.cache, found.trace) == (f"/c/{os.geteuid()}", f"/log/{os.geteuid()}.json")
    assert found.facts == f"/f/{os.geteuid()}"


def test_times_and_sizes_may_have_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = settings(repository="/mnt/x", deadline="5 min", trace="trace", trace_size="1 MiB", facts="f")
    assert (found.deadline, found.trace, found.trace_size) == (300.0, f"{tmp_path}/trace", 1 << 20)
    assert found.facts == f"{tmp_path}/f"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"deadline": "soon"}, "--deadline: 'soon' is not a valid time"),
        ({"trace_size": "large"}, "--trace-size: 'large' is not a valid size"),
        ({"prefer": "auto"}, "--prefer 'auto' must be one of sandbox, sif"),
        ({"never": "both"}, "--never 'both' must be one of none, sandbox, sif"),
        ({"unknown": "run"}, "--unknown 'run' must be one of pass, fetch"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_by_name(given: dict[str, str], why: str) -> None:
    with pytest.raises(ResolverUsageError, match=why):
        settings(repository="/mnt/x", **given)


def test_every_setting_has_a_kind_and_a_meaning() -> None:
    for name, kind, _, default, meaning in TABLE:
        assert kind, name
        assert meaning, name
        assert not default or kind not in PATHS, name
