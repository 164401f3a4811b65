"""The end of the tour: what is where, and what to try next, as commands that can be copied."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ci.demo.places import NAME, shown, size
from publisher.state.paths import sif_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ci.demo.actor import Actor
    from ci.demo.places import Places

    Resolved = Mapping[str, Mapping[str, Mapping[str, Any]]]


def text(places: Places, resolved: Resolved, actor: Actor, *, local: bool) -> str:
    """The summary.

    Args:
        places: where everything stands.
        resolved: image -> form -> the resolver's answer.
        actor: who ran it.
        local: whether the images came from the registry of the tour.
    """
    return "\n".join(["", *_where(places, resolved, actor, local=local), "", *_next(places, next(iter(resolved)), local=local)])


def _where(places: Places, resolved: Resolved, actor: Actor, *, local: bool) -> list[str]:
    rows = [
        (places.repository, f"stands for CVMFS, /cvmfs/{NAME}: sandboxes, links to them, the signed manifest"),
        (places.origin, "stands for OSDF: SIFs by their sha256, the same manifest"),
        (places.state, "the publisher's: layers by their digest, so that nothing is fetched twice"),
        (places.homes, f"home of {actor.name}, who ran the images, with the resolver's cache of SIFs"),
    ]
    if local:
        rows.append((places.registry, "storage of the local registry, which is stopped now"))
    lines = [f"What is where, below {places.root}"]
    lines += [f"  {path.name:9} {shown(size(path)):>10}  {what}" for path, what in rows if path.exists()]
    lines += [f"  {path.name:20}  {what}" for path, what in _files(places)]
    lines.append("Images, each in both forms")
    for name, forms in resolved.items():
        sandbox, sif = forms["sandbox"]["path"], forms["sif"]["sif"]["sha256"]
        lines.append(f"  /cvmfs/{NAME}/{name}")
        lines.append(f"    sandbox  {places.repository.name}/{name} -> {os.path.relpath(sandbox, places.repository)}")
        lines.append(f"    SIF      {places.origin.name}/{sif_path(sif)}")
    if actor.because:
        lines.append(f"Images ran as {actor.name} without its privileges, not as an ordinary user: {actor.because}")
    return lines


def _files(places: Places) -> list[tuple[Path, str]]:
    return [
        (places.images, "the list that was published"),
        (places.publisher, "configuration of the publisher"),
        (places.resolver, "configuration of an execution point"),
    ]


def _next(places: Places, name: str, *, local: bool) -> list[str]:
    checkout = places.root.parent
    demo = places.root.name
    resolve = f".venv/bin/image-resolver resolve {name} --config {demo}/{places.resolver.name}"
    privileges = "APPTAINER_NO_PRIVS=1 " if os.geteuid() == 0 else ""
    commands = [
        ("from here", f"cd {checkout}"),
        ("where is it, and why there", f"{resolve} --json"),
        ("run it from the SIF", f'{privileges}apptainer run "$({resolve} --form sif)"'),
        ("look around in the sandbox", f'{privileges}apptainer shell "$({resolve} --form sandbox)"'),
    ]
    if local:
        commands.append(
            ("the registry again", f"docker-registry serve {demo}/{places.registry.name}/registry.yml > /dev/null 2>&1 &")
        )
    commands += [
        (
            f"add an image to {demo}/{places.images.name}, then",
            f".venv/bin/publisher plan --config {demo}/{places.publisher.name}",
        ),
        ("publish it", f".venv/bin/publisher sync --config {demo}/{places.publisher.name}"),
        ("start over", f"rm -rf {demo}"),
    ]
    return ["What to try next", *(line for why, command in commands for line in (f"  # {why}", f"  {command}"))]
