"""What registries say when an image is pushed: the forms of Harbor, Docker Hub, Quay, and distribution's notifications. Pure."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from publisher.contract import reference
from publisher.contract.errors import InvalidReferenceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from publisher.contract.reference import Reference

_log = logging.getLogger(__name__)
_MOST = 1000
"""Images that one event may name."""


class EventError(ValueError):
    """A body that is no push event of a form that is known here."""


def pushed_images(content: bytes, registry: str | None = None) -> list[Reference]:
    """Return the images that an event says were pushed; empty if it is about something else, such as a pull or a removal.

    Args:
        content: the body of the request.
        registry: the registry's name in the list, where it is not the one in the event.

    Raises:
        EventError: the body is not JSON, or not of a known form.
    """
    try:
        value = json.loads(content)
        names = list(_names(value))[:_MOST]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise EventError("the body is no push event of distribution, Harbor, Docker Hub or Quay") from None
    return list(dict.fromkeys(found for name in names if (found := _parse(name, registry)) is not None))


def _names(value: dict[str, Any]) -> Iterable[str]:
    """Return references as the event has them.

    Raises:
        TypeError, KeyError, AttributeError, ValueError: the event has another form.
    """
    if "events" in value:
        return _of_distribution(value["events"])
    if "push_data" in value:
        return [f"docker.io/{value['repository']['repo_name']}:{value['push_data']['tag']}"]
    if "event_data" in value:
        return _of_harbor(value["type"] == "PUSH_ARTIFACT", value["event_data"])
    if "specversion" in value:
        return _of_harbor(value["type"] == "harbor.artifact.pushed", value["data"])
    if "docker_url" in value:
        return [f"{value['docker_url']}:{tag}" for tag in value.get("updated_tags") or ()]
    raise ValueError


def _of_distribution(events: list[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        target = event["target"]
        if event["action"] == "push" and target.get("tag"):
            yield f"{event['request']['host']}/{target['repository']}:{target['tag']}"


def _of_harbor(is_push: bool, data: dict[str, Any]) -> Iterator[str]:
    for resource in data["resources"] if is_push else ():
        if resource.get("tag"):
            yield resource["resource_url"]


def _parse(name: str, registry: str | None) -> Reference | None:
    """Return the reference of an image, None for a text that is none or has no tag."""
    try:
        found = reference.parse(name)
        if registry is not None:
            found = reference.parse(f"{registry}/{found.repository}:{found.tag}")
    except InvalidReferenceError as error:
        _log.debug("a push event names no image: %s", error)
        return None
    return None if found.tag is None or found.digest is not None else found
