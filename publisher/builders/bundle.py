"""The build step as one file: this program and the packages that it needs, as they are installed here, behind a shell script.

A machine of the pool needs a Python of the same minor version, because some packages are compiled for it; a machine without one
reports that. Compiled modules cannot be loaded from an archive, so the file unpacks itself into the job's directory first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import platform
import sys
import zipfile
from pathlib import Path

from publisher.builders.orders import FILE_INDEX, REPORT, SIF, UNSUITABLE
from publisher.contract import files
from publisher.system import command

_LEFT_OUT = {"__pycache__", "test", "tests"}
_KINDS = {".py", ".so"}
_SITE = {"sitecustomize", "usercustomize"}
"""Modules that Python imports by itself, if this host has them."""
_DEADLINE = 120  # seconds
_LIST = """\
import json, sys
import publisher.builders.step
from publisher.chunks.cutter import ChunkCutter
ChunkCutter()  # imports its library when it is made
print(json.dumps(sorted(name for name, module in sys.modules.items() if "." not in name and getattr(module, "__file__", None))))
"""
_MAIN = b"""\
import os, sys, zipfile

place = os.path.join(os.getcwd(), "program")
with zipfile.ZipFile(sys.path[0]) as archive:
    archive.extractall(place)
sys.path[0] = place
from publisher.builders.step import main

sys.exit(main())
"""
_HEADER = """\
#!/bin/sh
for python in {python} python{version} /usr/bin/python{version} python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info[:2] != {tuple})' 2> /dev/null; then
        exec "$python" -I "$0"
    fi
done
: > {sif}
: > {index}
echo '{report}' > {name}
exit 2
"""


def architecture() -> str:
    """Return the architecture that the file is for, as HTCondor names it: ``X86_64``, ``aarch64``."""
    machine = platform.machine()
    return "X86_64" if machine == "x86_64" else machine


def write_bundle(directory: Path, python: str = "python3") -> Path:
    """Write the file into a directory, under a name that says what is in it, unless it is there; return its path.

    Args:
        directory: an existing directory.
        python: path or name of the Python of the pool's machines that is tried first.

    Raises:
        CommandError: the modules of the build step cannot be imported here.
        OSError: the file cannot be written.
    """
    header, sources = _header(python).encode(), _sources()
    identity = hashlib.sha256(header + _MAIN)
    for name, path in sources.items():
        status = path.stat()
        identity.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    bundle = directory / f"build-step-{identity.hexdigest()[:16]}.pyz"
    if not bundle.exists():
        files.replace(str(bundle), header + _archive(sources), 0o755)
    return bundle


def _header(python: str) -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    report = {"outcome": UNSUITABLE, "reason": f"it has no Python {version}; the setting condor_python names one"}
    return _HEADER.format(
        python=python,
        version=version,
        tuple=tuple(sys.version_info[:2]),
        sif=SIF,
        index=FILE_INDEX,
        report=json.dumps(report),
        name=REPORT,
    )


def _sources() -> dict[str, Path]:
    """Return path in the archive -> file, of all that the build step imports from outside the standard library."""
    said = command.run([sys.executable, "-c", _LIST], deadline=_DEADLINE, cwd=_root("publisher"))
    own = [name for name in json.loads(said.stdout) if name not in sys.stdlib_module_names and not name.startswith("_")]
    sources: dict[str, Path] = {}
    for module in own:
        root = _root(module)
        single = root / f"{module}.py"
        paths = [single] if single.is_file() else [path for path in (root / module).rglob("*") if path.suffix in _KINDS]
        sources |= {str(path.relative_to(root)): path for path in paths if module not in _SITE}
    return {name: path for name, path in sorted(sources.items()) if _LEFT_OUT.isdisjoint(Path(name).parts)}


def _root(name: str) -> Path:
    """Return the directory that a module or package is in."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise AssertionError(f"{name} was imported a moment ago")
    return Path(spec.origin).parent.parent if spec.submodule_search_locations else Path(spec.origin).parent


def _archive(sources: dict[str, Path]) -> bytes:
    """Return a zip file of the build step's program, without dates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, content in {"__main__.py": _MAIN, **{name: path.read_bytes() for name, path in sources.items()}}.items():
            entry = zipfile.ZipInfo(name)  # 1 January 1980, the format's zero
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, content)
    return buffer.getvalue()
