"""Settings: their sources, which of them overrides which, and the messages about wrong ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from publisher.errors import ListError, UsageError
from publisher.layers.limits import LayerLimits
from publisher.settings.settings import PublisherSettings, default_text, settings_table
from publisher.settings.sources import load_settings
from publisher.settings.targets import CvmfsTarget
from publisher.targets.pelican.federation.address import OriginAddress

USER = 1000


def settings(
    flags: dict[str, object] | None = None, environ: dict[str, str] | None = None, *, euid: int = USER
) -> PublisherSettings:
    return load_settings(flags or {}, {"HOME": "/home/some", **(environ or {})}, cwd=Path("/here"), euid=euid)


def problems(flags: dict[str, object] | None = None, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ListError) as refused:
        settings(flags, environ)
    return refused.value.problems


def written(directory: Path, text: str) -> str:
    path = directory / "publisher.yaml"
    path.write_text(text)
    return str(path)


def test_flags_win_over_the_environment_over_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "registry_concurrency: 1\nmax_entries: 1\ntest_account: file\n")
    found = settings(
        {"config": path, "registry_concurrency": 3},
        {"PUBLISHER_REGISTRY_CONCURRENCY": "2", "PUBLISHER_MAX_ENTRIES": "2"},
    )
    assert (found.registry_concurrency, found.max_entries, found.test_account, found.compression) == (3, 2, "file", "zstd")


def test_flags_and_variables_that_are_empty_are_not_given() -> None:
    found = settings({"compression": None, "insecure_registry": ()}, {"PUBLISHER_COMPRESSION": "gzip", "PUBLISHER_KEY": ""})
    assert (found.compression, found.insecure_registries, found.key) == ("gzip", frozenset(), None)


def test_relative_paths_start_from_where_they_are_written(tmp_path: Path) -> None:
    path = written(tmp_path, "images: lists/images.yaml\nstate: ../state\nkey: ~/keys/signing.pem\n")
    found = settings({"config": path, "repository": "demo/cvmfs"}, {"PUBLISHER_ORIGIN": "./demo/osdf"})
    assert found.images == tmp_path / "lists/images.yaml"
    assert found.state == tmp_path.parent / "state"
    assert found.key == Path("/home/some/keys/signing.pem")
    assert found.targets() == (Path("/here/demo/cvmfs"), Path("/here/demo/osdf"))


def test_the_configuration_can_be_named_by_a_variable_and_the_flag_wins(tmp_path: Path) -> None:
    path = written(tmp_path, "registry_concurrency: 7\n")
    assert settings({}, {"PUBLISHER_CONFIG": path}).registry_concurrency == 7
    assert settings({"config": path}, {"PUBLISHER_CONFIG": "/nowhere.yaml"}).registry_concurrency == 7


def test_without_anything_the_list_is_here_and_nothing_is_published_anywhere() -> None:
    found = settings()
    assert found.images == Path("/here/images.yaml")
    with pytest.raises(UsageError, match=r"no place to publish is given \(give --repository DIR and --origin DIR, or their keys"):
        found.targets()


@pytest.mark.parametrize(("given", "missing"), [("repository", "--origin DIR,"), ("origin", "--repository DIR,")])
def test_the_place_that_is_missing_is_named_alone(given: str, missing: str) -> None:
    with pytest.raises(UsageError, match=f"give {missing}"):
        settings({given: "x"}).targets()


@pytest.mark.parametrize(
    ("euid", "environ", "state"),
    [
        (0, {}, "/var/lib/ospool-image-publisher"),
        (USER, {}, "/home/some/.local/state/ospool-image-publisher"),
        (USER, {"XDG_STATE_HOME": "/var/some"}, "/var/some/ospool-image-publisher"),
        (USER, {"PUBLISHER_STATE": "/elsewhere"}, "/elsewhere"),
        (0, {"PUBLISHER_STATE": "/elsewhere"}, "/elsewhere"),
    ],
)
def test_the_state_directory_is_the_systems_for_root_and_the_users_otherwise(
    euid: int, environ: dict[str, str], state: str
) -> None:
    assert settings({}, environ, euid=euid).state == Path(state)


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_without_a_home_the_state_directory_has_to_be_given(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="give --state DIR"):
        load_settings({}, environ, euid=USER)
    assert load_settings({"state": "/s"}, environ, euid=USER).state == Path("/s")


@pytest.mark.parametrize(
    "found",
    [
        settings({"insecure_registry": ("localhost:5000", "registry.example:80")}),
        settings({}, {"PUBLISHER_INSECURE_REGISTRY": "localhost:5000, registry.example:80"}),
    ],
    ids=["flags", "variable"],
)
def test_insecure_registries_are_several(found: PublisherSettings) -> None:
    assert found.insecure_registries == {"localhost:5000", "registry.example:80"}


def test_allowed_networks_are_several_of_both_kinds() -> None:
    found = settings({"allowed_networks": ("10.1.0.0/16", "fd00::/8")})
    assert [str(network) for network in found.allowed_networks] == ["10.1.0.0/16", "fd00::/8"]
    assert settings({}, {"PUBLISHER_ALLOWED_NETWORKS": "10.1.0.0/16, fd00::/8"}).allowed_networks == found.allowed_networks
    for wrong in ("10.1.0.1/16", "everything", 7):
        assert "--allowed-networks: " in problems({"allowed_networks": wrong})[0]


def test_the_file_takes_units_and_lists(tmp_path: Path) -> None:
    text = """\
insecure_registry: ['[::1]:5000', localhost]
blob_cache: 20 GB
max_unpacked_size: 1 GiB
max_entries: 10
max_path_length: 99
batch_time: 10 min
build_deadline: 2 h
name_template: '{registry}/{repository}:{tag}'
repository_name: singularity.opensciencegrid.org
"""
    found = settings({"config": written(tmp_path, text)})
    assert found.insecure_registries == {"[::1]:5000", "localhost"}
    assert (found.blob_cache, found.batch_time, found.build_deadline) == (20 * 10**9, 600, 7200)
    assert found.limits == LayerLimits(unpacked_size=1 << 30, entries=10, path_length=99)
    assert found.name_template == "{registry}/{repository}:{tag}"
    assert found.repository_name == "singularity.opensciencegrid.org"


def test_limits_and_account_are_those_of_the_parts_that_use_them_by_default() -> None:
    found = settings()
    assert found.limits == LayerLimits()
    assert (found.test_account, found.registry_concurrency) == ("image-test", 64)


def test_all_problems_of_all_sources_come_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "compresion: gzip\nregistry_concurrency: 1\nregistry_concurrency: 2\nblob_cache: some\n")
    said = problems(
        {"config": path, "registry_concurrency": "much", "name_template": "{tag}"},
        {"PUBLISHER_IMGES": "a", "PUBLISHER_MAX_ENTRIES": "-1", "PUBLISHER_TEST_ACCOUNT": "Root!"},
    )
    assert [re.sub(r"; write (a number|'\{repo).*", "", line) for line in said] == [
        f"{path}:1: the key 'compresion' is unknown; write compression",
        f"{path}:3: the key 'registry_concurrency' appears a second time; the first is in line 2; remove one",
        f"{path}:4: blob_cache: 'some' is not a valid size",
        "PUBLISHER_TEST_ACCOUNT: 'Root!' is not a valid account name; write up to 32 of a-z, 0-9, _ and -",
        "PUBLISHER_MAX_ENTRIES: '-1' is not a valid whole number above 0",
        "PUBLISHER_IMGES: there is no such setting; write PUBLISHER_IMAGES",
        "--registry-concurrency: 'much' is not a valid whole number above 0",
        "--name-template: '{tag}' is not allowed here",
    ]


def test_a_wrong_configuration_says_how_many_problems_and_is_a_usage_error() -> None:
    with pytest.raises(ListError) as refused:
        settings({"registry_concurrency": "x", "max_entries": "x"})
    assert str(refused.value) == "2 problem(s) in the configuration"
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("repository", "cvmfs:", "'' is not a valid name of a CVMFS repository; write cvmfs:FQRN"),
        ("repository", "cvmfs:../etc", "'../etc' is not a valid name of a CVMFS repository"),
        ("repository", "cvmfs:x;reboot", "'x;reboot' is not a valid name of a CVMFS repository"),
        ("origin", "http://origin.example/osg", "is not the address of an origin; write pelican://FEDERATION/PREFIX"),
        ("origin", "osdf://osg/images", "has a host; write osdf:///PREFIX with three slashes"),
        ("federation", "https://osg-htc.org", "'https://osg-htc.org' is not a valid host"),
        ("key", "a\0b", "is not a valid path"),
        ("insecure_registry", "http://localhost:5000", "'http://localhost:5000' is not a valid host; write HOST:PORT"),
        ("insecure_registry", "localhost:5000,", "'' is not a valid host"),
        ("insecure_registry", (5000,), "a list of HOST:PORT is expected here"),
        ("insecure_registry", 5000, "a list of HOST:PORT is expected here"),
        ("repository_name", "../etc", "'../etc' is not a valid repository name; write a name such as images.example.org"),
        ("sif_zstd_level", 23, "23 is not a level of zstd; write a number from 1 to 22"),
        ("sif_zstd_level", 0, "0 is not a valid whole number above 0"),
        ("compression", "lzma", "'lzma' is not allowed here; write 'zstd' or 'gzip'"),
        ("registry_concurrency", True, "True is not a valid whole number above 0"),
        ("test_deadline", "soon", "'soon' is not a valid time"),
    ],
)
def test_a_value_that_is_wrong_is_refused_with_what_to_write(key: str, value: object, says: str) -> None:
    (said,) = problems({key: value})
    assert said.startswith(f"--{key.replace('_', '-')}: ")
    assert says in said


@pytest.mark.parametrize(
    ("flags", "inner"),
    [
        ({"repository": "demo", "origin": "demo/osdf"}, "origin: /here/demo/osdf lies inside the repository /here/demo"),
        ({"repository": "demo/cvmfs", "origin": "demo"}, "repository: /here/demo/cvmfs lies inside the origin /here/demo"),
        ({"repository": "demo", "state": "demo"}, "state: /here/demo lies inside the repository /here/demo"),
        (
            {"repository": "cvmfs:x.example", "state": "/cvmfs/x.example/y"},
            "state: /cvmfs/x.example/y lies inside the repository cvmfs:x.example,",
        ),
        ({"origin": "demo", "key": "demo/../demo/key.pem"}, "key: /here/demo/key.pem lies inside the origin /here/demo"),
    ],
)
def test_nothing_else_of_ours_may_lie_where_everybody_can_read(flags: dict[str, object], inner: str) -> None:
    (said,) = problems(flags)
    assert said.startswith(inner)


def test_a_repository_may_be_one_of_cvmfs() -> None:
    found = settings({"repository": "cvmfs:images.example.org", "origin": "osdf"})
    assert found.targets() == (CvmfsTarget("images.example.org"), Path("/here/osdf"))
    assert CvmfsTarget("images.example.org").mount == Path("/cvmfs/images.example.org")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pelican://federation.example:8443/osg/images", OriginAddress("federation.example:8443", "/osg/images", direct=False)),
        ("osdf:///osg/images/", OriginAddress("", "/osg/images", direct=False)),
        ("https://origin.example", OriginAddress("origin.example", "", direct=True)),
        ("https://[::1]:8443/images", OriginAddress("[::1]:8443", "/images", direct=True)),
    ],
)
def test_an_origin_may_be_one_of_a_federation_or_a_server(text: str, found: OriginAddress) -> None:
    assert settings({"repository": "r", "origin": text}).targets().origin == found
    assert str(found) == text.rstrip("/")


@pytest.mark.parametrize("text", ["pelican://federation.example", "osdf:///", "https:///x", "https://h/a/../b", "https://u@h/x"])
def test_an_origin_that_is_no_place_is_refused(text: str) -> None:
    (said,) = problems({"origin": text})
    assert said.startswith("--origin: ")


def test_repository_and_origin_may_lie_beside_the_state() -> None:
    found = settings({"repository": "demo/cvmfs", "origin": "demo/osdf", "state": "demo", "key": "demo/key.pem"})
    assert found.targets() == (Path("/here/demo/cvmfs"), Path("/here/demo/osdf"))


def test_signing_without_a_key_says_how_to_make_one() -> None:
    assert settings({"key": "k.pem"}).signing_key() == Path("/here/k.pem")
    with pytest.raises(UsageError, match="give --key FILE; publisher keys new makes one"):
        settings().signing_key()


def test_trusted_keys_are_several(tmp_path: Path) -> None:
    path = written(tmp_path, "trusted_keys: [old.pem, /keys/older.pem]\n")
    assert settings({"config": path}).trusted_keys == (tmp_path / "old.pem", Path("/keys/older.pem"))
    assert settings({}, {"PUBLISHER_TRUSTED_KEYS": "a.pem,b.pem"}).trusted_keys == (Path("/here/a.pem"), Path("/here/b.pem"))
    assert problems({"trusted_keys": 5}) == ["--trusted-keys: a list of files is expected here"]


def test_a_configuration_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"the configuration /here/nothing\.yaml cannot be read: No such file"):
        settings({"config": "nothing.yaml"})


def test_a_configuration_that_is_no_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "images: a\nstate: [\n")
    (said,) = problems({"config": path})
    assert said.startswith(f"{path}:3: this is not YAML")


def test_nothing_after_a_colon_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "images: a\nstate:\n")
    assert problems({"config": path}) == [f"{path}:2: state: the value is missing; write one, or remove the key"]


def test_the_table_has_every_key_with_its_default() -> None:
    rows = settings_table().splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        f"`{field.alias or name}`" for name, field in PublisherSettings.model_fields.items()
    ]
    assert "| `registry_concurrency` | number | `64` | largest number of requests to one registry at a time |" in rows
    assert all(re.fullmatch(r"\| `\w+` \| \S.* \| .* \| \S.* \|", row) for row in rows[2:])


def test_the_table_shows_defaults_with_their_units() -> None:
    rows = {row.split("`")[1]: row for row in settings_table().splitlines()[2:]}
    assert rows.keys() == {field.alias or name for name, field in PublisherSettings.model_fields.items()}
    assert rows["removal_grace"].startswith("| `removal_grace` | time, 2 d or more | `14 d` |")
    assert rows["slowest_fetch"].startswith("| `slowest_fetch` | size per second | `100 kB` |")
    assert rows["max_unpacked_size"].startswith("| `max_unpacked_size` | size | `100 GiB` |")
    assert rows["compression"].startswith("| `compression` | `zstd` or `gzip` | `zstd` |")
    assert rows["token_key"].startswith("| `token_key` | file |  |")


def test_defaults_can_be_written_as_the_table_shows_them() -> None:
    given = {field.alias or name: default_text(name) for name, field in PublisherSettings.model_fields.items()}
    flags: dict[str, object] = {key: text for key, text in given.items() if text}
    assert load_settings(flags, {}, cwd=Path("/here"), euid=0) == load_settings({}, {}, cwd=Path("/here"), euid=0)


@pytest.mark.parametrize("value", ["2", "-0.1", "half", "true"])
def test_a_share_is_a_number_from_0_to_1(tmp_path: Path, value: str) -> None:
    with pytest.raises(ListError) as wrong:
        load_settings({"condor_sample": value}, {}, cwd=tmp_path)
    assert "is not a share; write a number from 0 to 1, such as 0.05" in wrong.value.problems[0]


def test_an_expression_for_a_pool_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ListError) as wrong:
        load_settings({"condor_requirements": "true\nqueue 100"}, {}, cwd=tmp_path)
    assert "is not a ClassAd expression; write one line" in wrong.value.problems[0]


def test_accepted_tools_and_further_origins_are_lists(tmp_path: Path) -> None:
    found = settings({"accepted_tools": "mksquashfs 4.5.1, apptainer 1.4.5", "further_origins": f"{tmp_path}/two,osdf:///three"})
    assert found.accepted_tools == (("mksquashfs", "4.5.1"), ("apptainer", "1.4.5"))
    assert list(map(str, found.further_origins)) == [f"{tmp_path}/two", "osdf:///three"]
    assert "is not a program with a version; write apptainer, mksquashfs" in "".join(problems({"accepted_tools": "mksquashfs"}))
    assert "is not a program with a version" in "".join(problems({"accepted_tools": "gcc 12"}))
    assert "is not the address of an origin" in "".join(problems({"further_origins": "ftp://x/y"}))
