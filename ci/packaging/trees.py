"""The files of each package, in a directory that stands for the root of the machine on which it will be installed."""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ci.packaging.package import EPOCH, PYTHON
from publisher import __version__

ROOT = Path(__file__).resolve().parents[2]
HOME = "usr/lib/ospool-image-publisher"
"""A virtual environment of its own: no package of the system's Python is seen by the publisher, or sees its packages."""
COMPLETIONS = {
    "bash": ["usr/share/bash-completion/completions/publisher"],
    "zsh": ["usr/share/zsh/vendor-completions/_publisher", "usr/share/zsh/site-functions/_publisher"],  # Debian's, EL9's
    "fish": ["usr/share/fish/vendor_completions.d/publisher.fish"],
}
ACCOUNTS = """\
u image-test - "test runs of strangers' images" - /usr/sbin/nologin
u image-build - "the programs of a build" - /usr/sbin/nologin
"""
PROGRAM = f"""\
#!/{HOME}/bin/python3 -I
import sys
from publisher.cli.main import main
sys.exit(main())
"""


def resolver_tree(made: Path, tree: Path) -> None:
    """Lay out the resolver for execution points: one file and its man page."""
    install(made / "image-resolver.pyz", tree / "usr/bin/image-resolver", mode=0o755)
    install(made / "image-resolver.1", tree / "usr/share/man/man1/image-resolver.1")
    install(ROOT / "LICENSE", tree / "usr/share/doc/image-resolver/copyright")
    settle(tree)


def publisher_tree(made: Path, wheels: Path, tree: Path) -> None:
    """Lay out the publisher with all Python packages that it needs, its units, accounts, man page and completions.

    Args:
        made: directory with the files of the release that exist already.
        wheels: directory with the wheels of the dependencies; what it lacks is downloaded.
        tree: directory to fill.
    """
    home = tree / HOME
    site = home / "lib" / PYTHON / "site-packages"
    install_wheels(made, wheels, site)
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to(f"/usr/bin/{PYTHON}")
    version = ".".join(map(str, sys.version_info[:2]))
    write(home / "pyvenv.cfg", f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n")
    write(home / "bin" / "publisher", PROGRAM, mode=0o755)
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/publisher").symlink_to(f"/{HOME}/bin/publisher")
    install(made / "publisher.1", tree / "usr/share/man/man1/publisher.1")
    install(ROOT / "LICENSE", tree / "usr/share/doc/ospool-image-publisher/copyright")
    for shell, places in COMPLETIONS.items():
        for place in places:
            install(made / f"publisher.{shell}", tree / place)
    for unit in sorted([*(ROOT / "ci/units").glob("*.service"), *(ROOT / "ci/units").glob("*.timer")]):
        text = re.sub(r"^(ExecStart=)\S+/publisher ", r"\1/usr/bin/publisher ", unit.read_text(), flags=re.MULTILINE)
        write(tree / "usr/lib/systemd/system" / unit.name, text)
    write(tree / "usr/lib/sysusers.d/ospool-image-publisher.conf", ACCOUNTS)
    (tree / "etc/ospool-image-publisher").mkdir(parents=True)
    settle(tree)


def install_wheels(made: Path, wheels: Path, site: Path) -> None:
    """Install the publisher and its dependencies, each with the hash that the lock file has, and compile them."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--target", str(site)]
    pip += ["--no-compile", "--no-deps", "--only-binary", ":all:"]
    locked = ["--require-hashes", "-r", str(made / "publisher-signatures.txt")]
    try:
        subprocess.run([*pip, "--no-index", "--find-links", str(wheels), *locked], check=True, stderr=subprocess.DEVNULL)
    except subprocess.CalledProcessError:
        shutil.rmtree(site, ignore_errors=True)
        subprocess.run([*pip, *locked], check=True)
    shutil.rmtree(site / "bin", ignore_errors=True)  # programs of the dependencies
    # found by its name: if pip were given the file, the package would hold the path of this directory
    subprocess.run([*pip, "--no-index", "--find-links", str(made), f"ospool-image-publisher=={__version__}"], check=True)
    shutil.rmtree(site / "bin")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH  # no date in it; the package manager replaces both files together
    compileall.compile_dir(
        site, quiet=1, stripdir=str(site), prependdir=f"/{HOME}/lib/{PYTHON}/site-packages", invalidation_mode=mode
    )


def install(source: Path, target: Path, *, mode: int = 0o644) -> None:
    """Copy a file into the tree."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def write(target: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a text file into the tree."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)


def settle(tree: Path) -> None:
    """Give every file and directory the date of a release and a mode that no umask has changed."""
    for path in [*tree.rglob("*"), tree]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (int(EPOCH), int(EPOCH)), follow_symlinks=False)
