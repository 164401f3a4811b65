from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.contract.quickhash import sha256
from tests.support.checkout import ROOT

PROGRAM = """
import sys
{before}
sys.path.insert(0, sys.argv[1])
from publisher.contract.quickhash import sha256
print(sha256(b"x").hexdigest(), "hashlib" in sys.modules)
"""


@given(st.binary(max_size=300))
def test_every_hash_is_that_of_hashlib(content: bytes) -> None:
    assert sha256(content).hexdigest() == hashlib.sha256(content).hexdigest()
    assert sha256(content).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize(("before", "loads_openssl"), [("", False), ("sys.modules.update(_sha256=None, _sha2=None)", True)])
def test_hashlib_is_imported_only_by_an_interpreter_that_has_nothing_else(before: str, loads_openssl: bool) -> None:
    command = [sys.executable, "-I", "-S", "-c", PROGRAM.format(before=before), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [hashlib.sha256(b"x").hexdigest(), str(loads_openssl)]
