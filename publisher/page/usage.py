"""How to use an image: the lines of a submit file, the command of a person at a terminal, and the URL of its SIF. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.page.rows import active_versions

if TYPE_CHECKING:
    from publisher.contract.records import Record


@dataclass(frozen=True)
class UsageLine:
    """One way to use an image: a title, and the text to copy."""

    title: str
    text: str


def usage_lines(record: Record, repository: str, origin: str) -> list[UsageLine]:
    """Return the ways to use an image.

    Args:
        record: what is published under the name.
        repository: the repository's name.
        origin: the URL of the origin with ``/`` at its end, such as ``osdf:///ospool/images/``; empty if it has none.
    """
    path = f"/cvmfs/{repository}/{record.name}"
    lines = [
        UsageLine("HTCondor, vanilla universe", f'universe = vanilla\n+SingularityImage = "{path}"'),
        UsageLine("HTCondor, container universe", f"universe = container\ncontainer_image = {path}"),
    ]
    usable = active_versions(record)
    if any(version.sandbox is not None for _, version in usable):
        lines.append(UsageLine("At a terminal, with CVMFS", f"apptainer exec {path} COMMAND"))
    sifs = {platform: version.sif for platform, version in usable if version.sif is not None}
    urls = {platform: f"{origin}{sif.path}" for platform, sif in sifs.items() if origin}
    for url in list(urls.values())[:1]:
        fetch = f"curl -o image.sif {url}" if url.startswith("https:") else f"pelican object get {url} image.sif"
        lines.append(UsageLine("At a terminal, without CVMFS", f"{fetch}\napptainer exec image.sif COMMAND"))
    lines += [UsageLine(f"URL of the SIF{f' for {one}' if len(urls) > 1 else ''}", url) for one, url in urls.items()]
    return lines
