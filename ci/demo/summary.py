"""The summary of the demonstration: what is where, and commands to try next."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ci.demo.demo_paths import NAME, format_size, size
from publisher.state.paths import sif_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ci.demo.demo_paths import DemoPaths
    from ci.demo.unprivileged_user import UnprivilegedUser

    Resolved = Mapping[str, Mapping[str, Mapping[str, Any]]]


def text(paths: DemoPaths, resolved: Resolved, user: UnprivilegedUser, *, local: bool) -> str:
    """Return the summary.

    Args:
        paths: the paths of the demonstration.
        resolved: image -> form -> the resolver's answer.
        user: the user who ran the images.
        local: whether the images came from the registry of the demonstration.
    """
    return "\n".join(["", *_where(paths, resolved, user, local=local), "", *_next(paths, next(iter(resolved)), local=local)])


def _where(paths: DemoPaths, resolved: Resolved, user: UnprivilegedUser, *, local: bool) -> list[str]:
    rows = [
        (paths.repository, f"in place of the CVMFS repository /cvmfs/{NAME}: sandboxes, links to them, the signed manifest"),
        (paths.origin, "in place of an OSDF origin: SIFs by their sha256, the same manifest"),
        (paths.state, "state of the publisher: layers by their digest, so that none is fetched twice"),
        (paths.homes, f"home of {user.name}, who ran the images, with the resolver's SIF cache"),
    ]
    if local:
        rows.append((paths.registry, "storage of the local registry, which has been stopped"))
    lines = [f"What is where, below {paths.root}"]
    lines += [f"  {path.name:9} {format_size(size(path)):>10}  {description}" for path, description in rows if path.exists()]
    lines += [f"  {path.name:20}  {description}" for path, description in _files(paths)]
    lines.append("Images, each in both forms")
    for name, forms in resolved.items():
        sandbox, sif = forms["sandbox"]["path"], forms["sif"]["sif"]["sha256"]
        lines.append(f"  /cvmfs/{NAME}/{name}")
        lines.append(f"    sandbox  {paths.repository.name}/{name} -> {os.path.relpath(sandbox, paths.repository)}")
        lines.append(f"    SIF      {paths.origin.name}/{sif_path(sif)}")
    if user.root_reason:
        lines.append(f"Images ran as {user.name} without its privileges, not as an ordinary user: {user.root_reason}")
    return lines


def _files(paths: DemoPaths) -> list[tuple[Path, str]]:
    return [
        (paths.images, "the list that was published"),
        (paths.publisher, "configuration of the publisher"),
        (paths.resolver, "configuration of an execution point"),
    ]


def _next(paths: DemoPaths, name: str, *, local: bool) -> list[str]:
    checkout = paths.root.parent
    demo = paths.root.name
    resolve = f".venv/bin/image-resolver resolve {name} --config {demo}/{paths.resolver.name}"
    privileges = "APPTAINER_NO_PRIVS=1 " if os.geteuid() == 0 else ""
    commands = [
        ("run the commands in this directory", f"cd {checkout}"),
        ("show where an image is, and why", f"{resolve} --json"),
        ("run it from the SIF", f'{privileges}apptainer run "$({resolve} --form sif)"'),
        ("look around in the sandbox", f'{privileges}apptainer shell "$({resolve} --form sandbox)"'),
    ]
    if local:
        commands.append(
            ("start the registry again", f"docker-registry serve {demo}/{paths.registry.name}/registry.yml > /dev/null 2>&1 &")
        )
    commands += [
        (
            f"add an image to {demo}/{paths.images.name}, then",
            f".venv/bin/publisher plan --config {demo}/{paths.publisher.name}",
        ),
        ("publish it", f".venv/bin/publisher sync --config {demo}/{paths.publisher.name}"),
        ("start over", f"rm -rf {demo}"),
    ]
    return ["What to try next", *(line for purpose, command in commands for line in (f"  # {purpose}", f"  {command}"))]
