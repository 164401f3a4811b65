from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.resolver.system import classad

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
TEXTS = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=60).filter(str.isprintable)
VALUES = st.one_of(TEXTS, st.integers(-(10**17), 10**17), st.booleans())
JOB = rb"""
ClusterId = 7
ProcId=0
 Owner = "user"
JobPrio = -5
WantContainer = true
wantSIF = FALSE
Requirements = (TARGET.Arch == "X86_64") && (TARGET.OpSys == "LINUX")
Arguments = "say \"hello\" c:\dir"
Windows = "c:\dir\"
Rank = 0.0
Both = "a" + "b"
Environment = undefined
Big = 123456789012345678901234567890
Sandbox = /cvmfs/x
not an attribute
9name = 1
"""


def test_plain_values_are_read_and_expressions_are_known_to_be_there() -> None:
    assert classad.parse(JOB) == {
        "clusterid": 7,
        "procid": 0,
        "owner": "user",
        "jobprio": -5,
        "wantcontainer": True,
        "wantsif": False,
        "arguments": 'say "hello" c:\\dir',
        "windows": "c:\\dir\\",
        "rank": 0.0,
        **dict.fromkeys(("requirements", "both", "big", "sandbox")),
    }


def test_real_numbers_are_read_as_htcondor_writes_them() -> None:
    ad = b"GPUs_Capability = 8.0\nA = -1.5E+01\nB = 8.6000000000000001\nBad = 1.2.3\nVersion = 9.0 + 1\n"
    assert classad.parse(ad) == {"gpus_capability": 8.0, "a": -15.0, "b": 8.6, "bad": None, "version": None}


def test_names_are_found_in_any_case_and_by_their_kind() -> None:
    found = classad.parse(JOB)
    assert (classad.get_string(found, "OWNER"), classad.get_integer(found, "clusterID")) == ("user", 7)
    assert (classad.get_string(found, "ClusterId"), classad.get_string(found, "Absent")) == ("", "")
    assert (
        classad.get_integer(found, "Owner"),
        classad.get_integer(found, "WantContainer"),
        classad.get_integer(found, "Absent"),
    ) == (
        None,
        None,
        None,
    )


def test_a_name_with_two_values_has_none_that_counts() -> None:
    assert classad.parse(b'A = "1"\na = "1"\n') == {"a": "1"}
    for second in (b'"2"', b"B", b"Undefined", b"1"):
        assert classad.parse(b'A = "1"\na = ' + second + b"\n") == {"a": None}
    assert classad.parse(b'A = "1"\na = 2\nA = "1"\n') == {"a": None}


def test_a_string_may_contain_line_feeds() -> None:
    assert classad.parse(b'A = "1\nB = 2\n\n3"\nC = 4\n') == {"a": "1\nB = 2\n\n3", "c": 4}
    assert classad.parse(b'A = "1" + "2\nB = 2\n"\nC = 4\n') == {"a": None, "c": 4}
    assert classad.parse(b'A = "C:\\"\nB = "x" =?= y\nC = 4\n') == {"a": "C:\\", "b": None, "c": 4}


@pytest.mark.parametrize("content", [b"", b"\n\n", b"=", b"= 1", b'"', b"A", b"\xff\xfe = 1"])
def test_anything_is_an_ad(content: bytes) -> None:
    assert classad.parse(content) == {}


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(content: bytes) -> None:
    for name in classad.parse(content):
        assert name == name.lower()


def test_bytes_that_are_no_utf_8_come_back_as_they_were() -> None:
    content = b'Image = "/cvmfs/\x80\xe9\xff"\n'
    assert classad.serialize({"Image": classad.get_string(classad.parse(content), "image")}) == content


@pytest.mark.untraced
@given(st.dictionaries(NAMES, VALUES, max_size=8))
def test_what_is_written_is_read(updates: dict[str, classad.Value]) -> None:
    updates = {name: value for name, value in updates.items() if sum(name.lower() == other.lower() for other in updates) == 1}
    written = classad.serialize(updates)
    assert written.count(b"\n") == len(updates)
    assert classad.parse(written) == {name.lower(): value for name, value in updates.items()}


@given(st.text(max_size=60))
def test_a_string_is_one_line_whatever_is_in_it(text: str) -> None:
    written = classad.serialize({"A": text.encode("utf-8", "ignore").decode()})
    assert written.count(b"\n") == 1
    assert isinstance(classad.parse(written)["a"], str)


def test_an_answer_keeps_its_order() -> None:
    assert classad.serialize({"B": 1, "A": True, "C": 'x"y\nz'}) == b'B = 1\nA = true\nC = "x\\"y z"\n'


@pytest.mark.parametrize("name", ["", "A B", "A=", "é", "1a", "A\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a valid attribute name"):
        classad.serialize({name: 1})
