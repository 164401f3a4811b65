"""What the resolver may need: Python 3.9, the standard library, and little of it while a job waits."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import publisher.resolver
from tests.support.execution_point import ExecutionPoint, record, sif_content

PACKAGE = Path(publisher.resolver.__file__).parent
ROOT = PACKAGE.parent.parent
WARM = {
    *("attempt", "cache", "choice", "cli", "commandline", "config", "errors", "facts", "kept", "lookup", "manifest", "notes"),
    *("outage", "pins", "quantity", "reference", "resolve", "shapes", "shelf", "sources", "trusted", "verify"),
}
"""Our modules that a warm answer needs; ``fetch`` and ``files`` it does not."""
LIBRARY = {"__future__", "binascii", "hashlib", "json", "os", "re", "select", "signal", "stat", "sys", "time"}
"""What those import at once. Each has its price in every job: ``python3 -X importtime`` shows it."""
DEAR = {
    *("argparse", "configparser", "contextlib", "dataclasses", "fcntl", "http", "inspect", "logging", "pathlib", "random"),
    *("shutil", "socket", "ssl", "subprocess", "tempfile", "threading", "traceback", "typing", "urllib", "zlib"),
}
"""What must not come in by a back door."""
LIMIT = 45
"""Modules beyond an empty program's that all of that may come to; parts of re and json count (38 on Python 3.11)."""
PROGRAM = """
import sys
bare = set(sys.modules)
sys.path.insert(0, sys.argv.pop(1))
from publisher.resolver.cli import main
status = main()
print(*sorted(set(sys.modules) - bare), file=sys.stderr)
sys.exit(status)
"""


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
    for path in PACKAGE.glob("*.py"):
        ast.parse(path.read_text(), str(path), feature_version=(3, 9))


def test_nothing_but_the_standard_library_and_itself_is_imported() -> None:
    for path in PACKAGE.glob("*.py"):
        names = {name for node in statements(ast.parse(path.read_text())) for name in imported_by(node)}
        foreign = {
            name
            for name in names
            if name.split(".")[0] not in sys.stdlib_module_names
            and name != "publisher.resolver"
            and not name.startswith("publisher.resolver.")
        }
        assert not foreign, path.name


def warm_modules(ep: ExecutionPoint, *flags: str) -> set[str]:
    name = "htc/rocky:9"
    ep.store(sif_content(name))
    ep.publish(record(name), now=int(time.time()))
    places = [
        "--repository",
        str(ep.repository),
        "--origin",
        str(ep.origin),
        "--cache",
        str(ep.cache),
        "--public-key",
        str(ep.keys),
    ]
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(ROOT), "resolve", name, *places, "--arch", "amd64", *flags]
    subprocess.run(command, check=True, capture_output=True)
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert str(ep.root) in run.stdout
    return set(run.stderr.split())


def test_a_warm_answer_imports_little(ep: ExecutionPoint) -> None:
    for form in ("sandbox", "sif"):
        modules = warm_modules(ep, "--form", form)
        ours = {module for module in modules if module.startswith("publisher")}
        needed = WARM | ({"tally"} if form == "sif" else set())
        assert ours == {"publisher", "publisher.resolver"} | {f"publisher.resolver.{name}" for name in needed}
        assert not modules & DEAR
        assert len(modules - ours) <= LIMIT


def test_the_modules_of_a_warm_answer_import_a_fixed_part_of_the_library() -> None:
    found: set[str] = set()
    for name in WARM:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        found |= {module for node in tree.body if not is_for_type_checkers(node) for module in imported_by(node)}
    assert {module for module in found if not module.startswith("publisher")} == LIBRARY
