"""Parsing of images.yaml: what is accepted, what is refused, and with which message."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from publisher.contract.reference import Reference
from publisher.errors import ListError, UsageError
from publisher.images import reader
from publisher.images.reader import Entry
from publisher.oci import Platform
from publisher.system import yamlfile
from tests.support.checkout import ROOT
from tests.support.publisher.lists import listed, parse
from tests.support.registries.cosign import PlainKey

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "sha256:" + "a" * 64
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def problems(text: str | bytes, template: str = reader.NAME_TEMPLATES[0]) -> list[str]:
    with pytest.raises(ListError) as refused:
        reader.parse(text.encode() if isinstance(text, str) else text, "images.yaml", template)
    return refused.value.problems


def problem(*entries: str) -> str:
    (only,) = problems(listed(*entries))
    return only


def test_plain_references_and_mappings_become_entries() -> None:
    text = """\
version: 1
defaults: {platforms: [linux/amd64], formats: [sandbox, sif]}
groups:
  - title: Common
    images:
      - debian:12
      - hub.opensciencegrid.org/htc/rocky:9
  - title: Special
    images:
      - image: ghcr.io/x/y:1
        platforms: [linux/arm64, linux/amd64]
        formats: [sif]
        owner: Someone
        project: Something
        expires: 2027-01-31
        max_size: 20 GB
        private: allowed
"""
    both = frozenset({"sandbox", "sif"})
    assert parse(text) == (
        Entry("library/debian:12", Reference("docker.io", "library/debian", "12"), (AMD64,), both, group="Common"),
        Entry("htc/rocky:9", Reference("hub.opensciencegrid.org", "htc/rocky", "9"), (AMD64,), both, group="Common"),
        Entry(
            "x/y:1",
            Reference("ghcr.io", "x/y", "1"),
            (ARM64, AMD64),
            frozenset({"sif"}),
            owner="Someone",
            project="Something",
            expires=date(2027, 1, 31),
            max_size=20 * 10**9,
            private=True,
            group="Special",
        ),
    )


def test_an_entry_knows_its_line() -> None:
    assert [entry.line for entry in parse(listed("a:1", "image: b:1", "c:1"))] == [5, 6, 7]


def test_defaults_hold_where_an_entry_says_nothing() -> None:
    text = "defaults: {platforms: [linux/arm64], formats: [sif], max_size: 1 kB}\n" + listed(
        "a:1", "{image: b:1, formats: [sandbox]}"
    )
    first, second = parse(text)
    assert (first.platforms, first.formats, first.max_size) == ((ARM64,), frozenset({"sif"}), 1000)
    assert (second.platforms, second.formats, second.max_size) == ((ARM64,), frozenset({"sandbox"}), 1000)


def test_without_defaults_both_forms_for_amd64() -> None:
    (entry,) = parse(listed("a:1"))
    assert (entry.platforms, entry.formats) == ((AMD64,), frozenset({"sandbox", "sif"}))


def test_a_tag_may_be_pinned_to_a_digest() -> None:
    (entry,) = parse(listed(f"a/b:1@{DIGEST}"))
    assert (entry.name, entry.reference.digest) == ("a/b:1", DIGEST)


def test_no_tag_means_latest() -> None:
    (entry,) = parse(listed("ghcr.io/star-bnl/star-sw"))
    assert entry.name == "star-bnl/star-sw:latest"


def test_the_registry_is_part_of_the_name_where_the_template_says_so() -> None:
    (entry,) = parse(listed("debian:12"), "{registry}/{repository}:{tag}")
    assert entry.name == "docker.io/library/debian:12"


def test_a_variant_that_says_nothing_is_dropped() -> None:
    (entry,) = parse(listed("{image: 'a:1', platforms: [linux/arm64/v8, linux/arm/v7]}"))
    assert entry.platforms == (ARM64, Platform("linux", "arm", "v7"))


def test_all_problems_come_at_once_by_line() -> None:
    text = """\
version: 1
defaults: {platfroms: [linux/amd64]}
groups:
  - title: Common
    images:
      - debian:12
      - 3.10
      - image: x/y:1
        formats: [sfi]
        ownr: me
      - *there
      - docker.io/library/debian:12
  - images: [HTC/x]
"""
    assert [re.sub(r";.*", "", line) for line in problems(text)] == [
        "images.yaml:2: the key 'platfroms' is unknown",
        "images.yaml:7: image: YAML reads 3.10 as a number",
        "images.yaml:9: formats: 'sfi' is not allowed here",
        "images.yaml:10: the key 'ownr' is unknown",
        "images.yaml:11: aliases (*there) are not allowed",
        "images.yaml:12: docker.io/library/debian:12 is already listed in line 6",
        "images.yaml:13: image: 'HTC/x' is not an image reference: the repository 'HTC/x' has capital letters",
        "images.yaml:13: the key 'title' is missing here",
    ]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("3.10", "YAML reads 3.10 as a number; write it in quotes: '3.10'"),
        ("310", "YAML reads 310 as a number; write it in quotes: '310'"),
        ("12:30", "YAML reads 12:30 as a number; write it in quotes"),
        ("yes", "YAML reads yes as true or false; write it in quotes: 'yes'"),
        ("2027-01-31", "YAML reads 2027-01-31 as a date; write it in quotes"),
        ("", "the value is missing"),
        ("[a]", "a text is expected here, not a list"),
        ("'debian:12 '", "'12 ' is not a tag"),
        ("1" * 5000, "is too long for an image reference"),
        ("0x" + "f" * 8000, "is too long for an image reference"),
        ("1:" * 5000 + "1", "is too long for an image reference"),
        ("''", "it has no repository"),
        ("https://ghcr.io/x/y:1", "is the address of a web page; write 'ghcr.io/x/y:1'"),
        ("https://hub.docker.com/_/debian", "write 'debian'"),
        ("https://hub.docker.com/r/htc/rocky/tags?name=9", "write 'htc/rocky'"),
        ("hub.docker.com/r/htc/rocky", "write 'htc/rocky'"),
        ("https://quay.io/repository/htc/rocky?tab=tags", "write 'quay.io/htc/rocky'"),
        ("https://github.com/htc/project/pkgs/container/rocky", "write 'ghcr.io/htc/rocky'"),
        ("https://github.com/orgs/HTC/packages/container/package/a%2Frocky", "write 'ghcr.io/htc/a/rocky'"),
        ("https://github.com/htc/rocky", "write [registry/]repository[:tag], as for docker pull"),
        (f"a/b@{DIGEST}", f"which its name is made of; write 'a/b:TAG@{DIGEST}'"),
        ("reg.io/../../x:1", "contains '..', which is reserved and cannot be published"),
        (".images/aa:1", "contains '.images', which is reserved and cannot be published"),
        ("a/.arch:1", "contains '.arch:1', which is reserved and cannot be published"),
        (".publisher/a", "contains '.publisher', which is reserved and cannot be published"),
        (".transaction/a", "contains '.transaction', which is reserved and cannot be published"),
        ("a/.cvmfscatalog", "contains '.cvmfscatalog', which is reserved and cannot be published"),
        ("a/.wh.b", "contains '.wh.b', which is reserved and cannot be published"),
        (f"{'a' * 200}:{'b' * 100}", "a part of more than 255 bytes; choose a shorter tag"),
        (f"'{'a/' * 5000}'", "is too long for an image reference"),
        ("!foo a:1", "tags (!foo) are not allowed"),
        ("!!python/name:os.system ''", "tags (tag:yaml.org,2002:python/name:os.system) are not allowed"),
        ("*a", "aliases (*a) are not allowed"),
        ("{}", "the key 'image' is missing here"),
        ("{image: 'a:1', image: 'b:1'}", "the key 'image' appears a second time; the first is in line 5; remove one"),
        ("{image: 'a:1', platfrom: [linux/amd64]}", "the key 'platfrom' is unknown; write platforms"),
        ("{image: 'a:1', zzz: 1}", "the key 'zzz' is unknown; the keys here are image, tags"),
        ("{image: 'a:1', <<: {owner: b}}", "the key '<<' is unknown"),
        ("{image: 'a:1', [b]: 3}", "a key must be a plain word"),
        ("{image: 'a:1', platforms: [linux/x86_64]}", "is not a platform of execution points; write linux/amd64"),
        ("{image: 'a:1', platforms: [linux/amd46]}", "is not a platform of execution points; write linux/amd64"),
        ("{image: 'a:1', platforms: [windows/amd64]}", "is not a platform of execution points; write linux/amd64"),
        ("{image: 'a:1', platforms: [linux/arm64/]}", "is not a platform of execution points; write linux/arm64"),
        ("{image: 'a:1', platforms: [linux]}", "is not a platform of execution points; write linux/ and one of"),
        ("{image: 'a:1', platforms: [linux/arm64, linux/arm64/v8]}", "linux/arm64 appears twice; remove one"),
        ("{image: 'a:1', platforms: linux/amd64}", "a list ('- ' before each) is expected here, not a text"),
        ("{image: 'a:1', platforms: [386]}", "YAML reads 386 as a number; write it in quotes: '386'"),
        (f"{{image: 'a:1', platforms: [{'linux/amd64, ' * 21}]}}", "list should have at most 20 items"),
        ("{image: 'a:1', platforms: []}", "something in the list is expected here, not an empty list"),
        ("{image: 'a:1', formats: [tar]}", "'tar' is not allowed here; write 'sandbox' or 'sif'"),
        ("{image: 'a:1', formats: [sif, sif]}", "sif appears twice; remove one"),
        ("{image: 'a:1', owner: 12}", "owner: YAML reads 12 as a number; write it in quotes: '12'"),
        (r'{image: "a:1", owner: "\e[31m"}', "owner: '\\x1b[31m' is empty or has unprintable characters"),
        ("{image: 'a:1', owner: ' '}", "owner: ' ' is empty or has unprintable characters"),
        ("{image: 'a:1', expires: 2027-02-29}", "'2027-02-29' is not a day of the calendar"),
        ("{image: 'a:1', expires: 31.1.2027}", "'31.1.2027' is not a date; write it as 2027-01-31"),
        ("{image: 'a:1', expires: 2027-01-31 10:00:00}", "is not a date; write it as 2027-01-31"),
        ("{image: 'a:1', expires: 20270131}", "is not a date; write it as 2027-01-31"),
        (
            "{image: 'a:1', max_size: 20 XB}",
            "'20 XB' is not a valid size; write a number of bytes, or a number with a unit such as '20 GB'",
        ),
        ("{image: 'a:1', max_size: -1}", "-1 is not a valid size"),
        ("{image: 'a:1', private: yes}", "private: 'True' is not allowed here; write 'allowed'"),
        ("{image: 'a:1', owner: }", "owner: the value is missing; write one, or remove the key"),
        ("{image: 'a', tags: }", "tags: the value is missing; write one, or remove the key"),
    ],
)
def test_an_entry_that_is_wrong_is_refused_with_what_to_write(entry: str, says: str) -> None:
    said = problem(entry)
    assert said.startswith("images.yaml:5: ")
    assert says in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "1: the file is empty"),
        ("# nothing\n", "1: the file is empty"),
        ("version: 1\ngroups: ]", "2: this is not YAML"),
        ("version: 1\n\tgroups: []\n", "2: this is not YAML (column 1); there is a tab; indent with spaces only"),
        (
            "version: 1\nimages:\n  - a:1\n - b:1\n",
            "4: this is not YAML (column 2); its indentation (1 spaces) is that of no line above",
        ),
        ("images:\n  - image: a\n     tags: [x]\n", "3: this is not YAML (column 10); a key ends with a colon and a blank"),
        ("images:\n  - image: a\n    tags [x]\n", "4: this is not YAML (column 1); the line above is neither a key with a colon"),
        ("images:\n  - image: a\n    tags: [x\n", "4: this is not YAML (column 1); the list that begins with [ is not closed"),
        ("images:\n  - 'a\n", "3: this is not YAML (column 1); the quote that begins in line 2 has no end"),
        ("images:\n  - @a\n", "2: this is not YAML (column 5); put a text that begins with @ into quotes"),
        (" version: 1\nimages: []\n", "2: this is not YAML (column 1); its indentation (0 spaces) is not that of the first line"),
        ("version: 1\ngroups: []\n", "1: the list is empty"),
        ("version: 1\ngroups:\n  - {title: A, images: []}\n", "1: the list is empty"),
        ("version: 1\n", "1: the list is empty"),
        ("groups: []\n", "1: the key 'version' is missing here"),
        ("\nversion: 2\nunknown: 1\n", "2: this program supports version 1 of the list, not version 2"),
        ("version: 0\ngroups: []\n", "1: version: '0' is not allowed here; write 1"),
        ("version: '1'\ngroups: []\n", "1: version: '1' is not allowed here; write 1"),
        ("- debian:12\n", "1: a mapping (key: value) is expected here, not a list"),
        ("debian:12\n", "1: a mapping (key: value) is expected here, not a text"),
        (listed("a:1") + "---\nversion: 1\n", "6: a second document begins here"),
        (b"version: 1\n# caf\xe9\n", "2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("version: 1\n".encode("utf-16"), "1: byte 0xff is not UTF-8"),
        ("version: 1\n\x00", "2: the character '\\x00' is not allowed in YAML"),
        ("[" * 100_000, "1: the file is nested more than 12 deep"),
        ("- " * 100_000, "1: the file is nested more than 12 deep"),
        (b"#" * (yamlfile.LARGEST + 1), f"1: the file has more than {yamlfile.LARGEST} bytes"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(text: str | bytes, says: str) -> None:
    (said,) = problems(text)
    assert said.startswith(f"images.yaml:{says}")


def test_a_file_of_endless_values_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert yamlfile._MAX_VALUES == 500_000
    monkeypatch.setattr(yamlfile, "_MAX_VALUES", 5_000)
    (said,) = problems("[" + ",".join(["1"] * 5_001) + "}")
    assert said.startswith("images.yaml:1: the file has more than 5000 values"), "the wrong bracket after them is not seen"


def test_a_byte_order_mark_is_nothing_to_complain_of() -> None:
    assert len(reader.parse(b"\xef\xbb\xbf" + listed("a:1").encode(), "images.yaml").entries) == 1


def test_an_image_listed_twice_is_refused_with_both_lines() -> None:
    said = problem("debian:12", "docker.io/library/debian:12")
    assert said == "images.yaml:6: docker.io/library/debian:12 is already listed in line 5; remove one"


def test_the_pinned_and_the_moving_form_of_a_tag_are_the_same_image() -> None:
    assert "is already listed in line 5" in problem("a/b:1", f"a/b:1@{DIGEST}")


def test_two_registries_with_one_name_are_refused_with_both_lines() -> None:
    said = problem("ghcr.io/x/y:1", "x/y:1")
    assert said == "images.yaml:6: docker.io/x/y:1 and ghcr.io/x/y:1 in line 5 would both be published as x/y:1; remove one"


def test_with_the_registry_in_the_name_two_registries_do_not_collide() -> None:
    assert len(parse(listed("ghcr.io/x/y:1", "x/y:1"), "{registry}/{repository}:{tag}")) == 2


def test_a_short_list_needs_no_groups() -> None:
    read = reader.parse(b"version: 1\nimages:\n  - htc/rocky:9\n  - {image: htc/debian, tags: ['12.*']}\n", "images.yaml")
    assert [(entry.name, entry.group, entry.line) for entry in read.entries] == [("htc/rocky:9", "", 3)]
    assert [(str(pattern), pattern.line) for pattern in read.patterns] == [("docker.io/htc/debian:12.*", 4)]


def test_collisions_of_images_with_and_without_a_group_are_found() -> None:
    text = "version: 1\nimages: [htc/rocky:9]\ngroups:\n  - {title: A, images: [ghcr.io/htc/rocky:9]}\n"
    with pytest.raises(ListError) as refused:
        parse(text)
    assert "would both be published as htc/rocky:9" in refused.value.problems[0]


def test_collisions_across_groups_are_found() -> None:
    text = listed("a:1") + "  - title: Other\n    images: [{image: 'a:1'}]\n"
    (said,) = problems(text)
    assert said.startswith("images.yaml:7: docker.io/library/a:1 is already listed in line 5")


def test_a_list_that_is_not_there_says_which_flag_to_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"images\.yaml cannot be read: No such file.*--images FILE"):
        reader.load(tmp_path / "images.yaml")


def test_a_list_is_loaded_from_its_file_and_problems_name_it(tmp_path: Path) -> None:
    path = tmp_path / "images.yaml"
    path.write_text(listed("a:1"))
    assert [entry.name for entry in reader.load(path).entries] == ["library/a:1"]
    path.write_text("version: 3")
    with pytest.raises(ListError) as refused:
        reader.load(path)
    assert refused.value.problems[0].startswith(f"{path}:1: ")


def test_the_repositorys_own_list_is_valid() -> None:
    own = reader.load(ROOT / "images.yaml")
    entries = {entry.name: entry for entry in own.entries}
    assert str(entries["htc/rocky:9"].reference) == "hub.opensciencegrid.org/htc/rocky:9"
    assert str(entries["library/debian:latest"].reference) == "docker.io/library/debian:latest"
    assert (len(own.entries), len(own.patterns)) == (449, 113)
    assert {str(pattern) for pattern in own.patterns} >= {"docker.io/gromacs/gromacs:*", "docker.io/eicweb/eic_xl:*-stable"}
    registries = Counter(
        reference.registry for reference in [one.reference for one in own.entries] + [one.reference for one in own.patterns]
    )
    assert registries == {
        "docker.io": 432,
        "containers.ligo.org": 58,
        "ghcr.io": 51,
        "hub.opensciencegrid.org": 20,
        "docker.opencarp.org": 1,
    }


# --- required signatures


def signed_by(text: str) -> str:
    return listed(f"{{image: a/b:1, require: signed, signed_by: {text}}}")


def test_an_entry_names_the_signer_whose_signature_it_requires() -> None:
    entry = parse(signed_by("{identity: me@example.org, issuer: 'https://login.example.org'}"))[0]
    assert entry.signer is not None
    assert entry.signer.to_json() == {"identity": "me@example.org", "issuer": "https://login.example.org"}
    key = PlainKey()
    image_list = reader.parse(signed_by(json.dumps({"public_key": key.pem})).replace("a/b:1", "'a/b:*'").encode(), "images.yaml")
    expanded = reader.expand(image_list.patterns[0], ["1", "2"])
    assert [entry.signer.to_json() for entry in expanded if entry.signer] == [{"key": key.sha256}] * 2


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "it must be ECDSA on P-256, Ed25519, or RSA of 2048 bits or more"),
        (
            rsa.generate_private_key(65537, 1024),  # noqa: S505 - refused for that
            "it must be ECDSA on P-256, Ed25519, or RSA of 2048 bits or more",
        ),
        (x25519.X25519PrivateKey.generate(), "it must be ECDSA on P-256, Ed25519, or RSA of 2048 bits or more"),
    ],
    ids=["P-384", "RSA of 1024 bits", "X25519"],
)
def test_a_key_that_images_are_not_signed_with_is_refused(kind: Any, says: str) -> None:
    pem = kind.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    assert says in problems(signed_by(json.dumps({"public_key": pem})))[0]


@pytest.mark.parametrize(
    "kind", [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()], ids=["RSA", "Ed25519"]
)
def test_keys_of_other_kinds_are_accepted(kind: Any) -> None:
    pem = kind.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    assert parse(signed_by(json.dumps({"public_key": pem})))[0].signer is not None


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{image: a/b:1, require: signed}", "5: require: say whose signature under signed_by"),
        ("{image: a/b:1, signed_by: {identity: me, issuer: you}}", "5: signed_by: it has no effect alone; add require: signed"),
        (
            "{image: a/b:1, require: signed, signed_by: {identity: me}}",
            "signed_by: write either identity and issuer, or public_key",
        ),
        (
            "{image: a/b:1, require: signed, signed_by: {public_key: MFkw}}",
            "this is not a public key in PEM; copy the whole file cosign.pub",
        ),
    ],
)
def test_half_a_requirement_is_reported_with_its_line(entry: str, says: str) -> None:
    assert says in problems(listed(entry))[0]
