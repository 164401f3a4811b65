"""What the resolver may need: Python 3.9, the standard library, and little of it while a job waits."""

from __future__ import annotations

import ast
import subprocess
import sys
import time

import pytest

from tests.support.checkout import ROOT, SHIPPED
from tests.support.ep.execution_point import REPOSITORY, ExecutionPoint, Key, record, sif_content
from tests.support.ep.hook import job_ad
from tests.support.ep.two_levels import keys_document

NAME = "htc/rocky:9"
PATH = f"/cvmfs/{REPOSITORY}/{NAME}"
WARM = {
    *(
        "contract",
        "contract.errors",
        "contract.fields",
        "contract.manifest",
        "contract.query",
        "contract.quickhash",
        "contract.quickjson",
        "contract.records",
    ),
    "contract.units",
    *("resolver", "resolver.cli", "resolver.errors"),
    *("resolver.system", "resolver.system.deadline_fork", "resolver.system.log"),
    *("resolver.system.notes", "resolver.system.outage", "resolver.system.watched_call"),
    *("resolver.config", "resolver.config.commandline", "resolver.config.machine", "resolver.config.settings"),
    *("resolver.transfer", "resolver.transfer.open_source", "resolver.transfer.sources"),
    *("resolver.cache", "resolver.cache.cache", "resolver.cache.entries", "resolver.cache.pins"),
    *("resolver.trust", "resolver.trust.lookup", "resolver.trust.manifest_cache", "resolver.trust.manifest_loader"),
    *("resolver.trust.signature_cache", "resolver.trust.signatures"),
    *(
        "resolver.select",
        "resolver.select.choice",
        "resolver.select.facts",
        "resolver.select.preparation",
        "resolver.select.resolve",
        "resolver.select.sandbox",
    ),
}
"""Our modules that a warm answer needs; ``fetch`` and ``files`` it does not."""
OF_FORM: dict[str, set[str]] = {"sandbox": set(), "sif": {"resolver.cache.counters"}}
TWO_LEVELS = {"contract.keys_document", "resolver.trust.authority"}
"""Those that an index with a keys document needs besides."""
HOOK_MODULES = ("backoff", "decide", "decision", "job", "main", "prepare", "reply", "statuses")
HOOK = WARM | {"resolver.hook", "resolver.system.classad"} | {f"resolver.hook.{name}" for name in HOOK_MODULES}
"""Those that the hook needs, its child's among them."""
LIBRARY = {"__future__", "_signal", "binascii", "os", "select", "stat", "sys", "time"}
"""What those import at once. Each has its price in every job: ``python3 -X importtime`` shows it."""
DEAR = {
    *(
        "argparse",
        "collections",
        "configparser",
        "contextlib",
        "dataclasses",
        "enum",
        "fcntl",
        "functools",
        "hashlib",
        "json",
        "re",
        "signal",
        "http",
        "inspect",
        "logging",
        "pathlib",
        "random",
    ),
    *("shutil", "socket", "ssl", "subprocess", "tempfile", "threading", "traceback", "typing", "urllib", "zlib"),
}
"""What must not come in by a back door."""
NEW_IN_3_10 = {
    *("aiter", "anext", "bit_count", "pairwise", "EncodingWarning", "orig_argv", "stdlib_module_names", "splice", "eventfd"),
    *("get_annotations", "ParamSpec", "TypeAlias", "Concatenate", "TypeGuard", "kw_only", "root_dir"),
}
"""Names of the library that Python 3.9 does not have."""
LIMIT = 20
"""Modules beyond an empty program's that all of that may come to (14 on Python 3.11)."""
PROGRAM = """
import sys
bare = set(sys.modules)
sys.path.insert(0, sys.argv.pop(1))
from publisher.resolver.cli import main
status = main()
print(*sorted(set(sys.modules) - bare), file=sys.stderr)
sys.exit(status)
"""
HOOK_PROGRAM = """
import sys
bare = set(sys.modules)
sys.path.insert(0, sys.argv.pop(1))
from publisher.resolver import cli
from publisher.resolver.hook import main as hook
import os, time
content = sys.stdin.buffer.read()
settings = hook.CommandLine(sys.argv[1:]).settings(os.environ)
now = time.monotonic()
answer, _ = hook.reply.unpack(hook._prepare_in_child(content, settings, now, now + 60))
sys.stdout.buffer.write(answer)
hook._signal.setitimer(hook._signal.ITIMER_REAL, 0)
print(*sorted(set(sys.modules) - bare), file=sys.__stderr__)
"""
"""What the hook's two processes do, in one."""


def imported_by(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0
        return {node.module or ""}
    return set()


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(tree: ast.AST) -> list[ast.stmt]:
    """All statements that run, whatever they stand in."""
    found = [node for node in ast.iter_child_nodes(tree) if not is_for_type_checkers(node)]
    return [node for node in found if isinstance(node, ast.stmt)] + [inner for node in found for inner in statements(node)]


def test_every_module_is_python_3_9() -> None:
    for path in SHIPPED:
        ast.parse(path.read_text(), str(path), feature_version=(3, 9))


def newer_than_3_9(tree: ast.AST) -> set[str]:
    """What Python 3.10 brought and no grammar shows; what is newer still, mypy finds in ci/test."""
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in NEW_IN_3_10}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {word.arg for word in node.keywords if node.func.id == "zip" and word.arg}
            found |= {"|" for part in node.args if node.func.id.startswith("is") and isinstance(part, ast.BinOp)}
        if isinstance(node, ast.Name) and node.id in NEW_IN_3_10:
            found.add(node.id)
    return found


def test_nothing_that_python_3_10_brought_is_used() -> None:
    assert newer_than_3_9(ast.parse("zip(a, b, strict=True); isinstance(a, int | str); b.bit_count()")) == {
        "strict",
        "|",
        "bit_count",
    }
    for path in SHIPPED:
        assert not newer_than_3_9(ast.parse(path.read_text())), path


@pytest.mark.skipif(sys.version_info < (3, 10), reason="sys.stdlib_module_names is new in Python 3.10")
def test_nothing_but_the_standard_library_and_itself_is_imported() -> None:
    for path in SHIPPED:
        names = {name for node in statements(ast.parse(path.read_text())) for name in imported_by(node)}
        foreign = {
            name
            for name in names
            if name.split(".")[0] not in sys.stdlib_module_names
            and not name.startswith(("publisher.resolver", "publisher.contract"))
            and name != "publisher"  # the version
        }
        assert not foreign, path


def warm_modules(ep: ExecutionPoint, program: str, *words: str) -> set[str]:
    """The modules that a second answer imports beyond those of an empty program."""
    ep.store(sif_content(NAME))
    ep.publish(record(NAME), now=int(time.time()))
    places = {"repository": ep.repository, "origin": ep.origin, "cache": ep.cache, "public-key": ep.keys, "arch": "amd64"}
    flags = [word for name, place in places.items() for word in (f"--{name}", str(place))]
    command = [sys.executable, "-I", "-S", "-c", program, str(ROOT), *words, *flags]
    subprocess.run(command, check=True, capture_output=True, input=job_ad(ContainerImage=PATH))
    run = subprocess.run(command, capture_output=True, check=True, input=job_ad(ContainerImage=PATH))
    assert str(ep.root).encode() in run.stdout
    return set(run.stderr.decode().split())


def assert_little(modules: set[str], ours: set[str]) -> None:
    found = {module for module in modules if module.startswith("publisher")}
    assert found == {"publisher"} | {f"publisher.{name}" for name in ours}
    assert not modules & DEAR
    assert len(modules - found) <= LIMIT


@pytest.mark.parametrize("form", ["sandbox", "sif"])
def test_a_warm_answer_imports_little(ep: ExecutionPoint, form: str) -> None:
    assert_little(warm_modules(ep, PROGRAM, "resolve", PATH, "--form", form), WARM | OF_FORM[form])


@pytest.mark.parametrize("form", ["sandbox", "sif"])
def test_a_warm_hook_imports_little_more(ep: ExecutionPoint, form: str) -> None:
    assert_little(warm_modules(ep, HOOK_PROGRAM, "prepare-job", "--form", form), HOOK | OF_FORM[form])


def test_a_warm_hook_with_two_levels_of_keys_imports_two_modules_more(ep: ExecutionPoint) -> None:
    root = Key()
    (ep.keys / "current.pem").write_bytes(root.pem)
    ep.two_levels = lambda now: keys_document(ep.key, root=root, now=now)
    assert_little(warm_modules(ep, HOOK_PROGRAM, "prepare-job"), HOOK | TWO_LEVELS)


def test_the_modules_of_a_warm_answer_import_a_fixed_part_of_the_library() -> None:
    found: set[str] = set()
    for name in HOOK | TWO_LEVELS:
        module = ROOT / "publisher" / name.replace(".", "/")
        tree = ast.parse((module / "__init__.py" if module.is_dir() else module.with_suffix(".py")).read_text())
        found |= {module for node in tree.body if not is_for_type_checkers(node) for module in imported_by(node)}
    assert {module for module in found if not module.startswith("publisher")} == LIBRARY
