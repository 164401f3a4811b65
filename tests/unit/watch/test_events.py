"""Push events as the registries' documentation has them."""

from __future__ import annotations

import json

import pytest

from publisher.watch.events import EventError, pushed_images

DISTRIBUTION = {
    "events": [
        {
            "id": "1",
            "action": "push",
            "target": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "repository": "htc/rocky", "tag": "9"},
            "request": {"host": "registry.example:5000", "method": "PUT"},
        },
        {
            "action": "push",
            "target": {"repository": "htc/rocky", "digest": "sha256:1"},
            "request": {"host": "registry.example:5000"},
        },
        {"action": "pull", "target": {"repository": "htc/rocky", "tag": "8"}, "request": {"host": "registry.example:5000"}},
    ]
}
HARBOR = {
    "type": "PUSH_ARTIFACT",
    "occur_at": 1,
    "operator": "admin",
    "event_data": {
        "resources": [{"digest": "sha256:1", "tag": "9", "resource_url": "harbor.example/htc/rocky:9"}],
        "repository": {"name": "rocky", "namespace": "htc", "repo_full_name": "htc/rocky", "repo_type": "public"},
    },
}
HARBOR_CLOUD = {"specversion": "1.0", "type": "harbor.artifact.pushed", "data": HARBOR["event_data"]}
DOCKER_HUB = {
    "callback_url": "https://registry.hub.docker.com/u/htc/rocky/hook/1/",
    "push_data": {"pushed_at": 1, "pusher": "htc", "tag": "9"},
    "repository": {"repo_name": "htc/rocky", "name": "rocky", "namespace": "htc"},
}
QUAY = {
    "repository": "htc/rocky",
    "namespace": "htc",
    "name": "rocky",
    "docker_url": "quay.io/htc/rocky",
    "homepage": "https://quay.io/repository/htc/rocky",
    "updated_tags": ["9", "latest"],
}


@pytest.mark.parametrize(
    ("event", "images"),
    [
        (DISTRIBUTION, ["registry.example:5000/htc/rocky:9"]),
        (HARBOR, ["harbor.example/htc/rocky:9"]),
        (HARBOR_CLOUD, ["harbor.example/htc/rocky:9"]),
        (DOCKER_HUB, ["docker.io/htc/rocky:9"]),
        (QUAY, ["quay.io/htc/rocky:9", "quay.io/htc/rocky:latest"]),
        ({**QUAY, "updated_tags": {"9": "id"}}, ["quay.io/htc/rocky:9"]),
        ({**HARBOR, "type": "DELETE_ARTIFACT"}, []),
        ({**HARBOR_CLOUD, "type": "harbor.artifact.pulled"}, []),
        ({"events": []}, []),
    ],
)
def test_the_pushed_tags_of_each_form_are_found(event: object, images: list[str]) -> None:
    assert list(map(str, pushed_images(json.dumps(event).encode()))) == images


def test_a_registry_behind_another_name_is_named_by_the_url() -> None:
    content = json.dumps(DISTRIBUTION).encode()
    assert list(map(str, pushed_images(content, "hub.example.org"))) == ["hub.example.org/htc/rocky:9"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"7",
        b'{"a": 1}',
        b'{"events": [{"action": "push"}]}',
        b'{"events": 7}',
        b'{"push_data": {}}',
        b'{"event_data": 7, "type": "PUSH_ARTIFACT"}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_anything_else_is_no_push_event(content: bytes) -> None:
    with pytest.raises(EventError, match="no push event"):
        pushed_images(content)


def test_texts_that_are_no_references_are_left_out() -> None:
    event = {**QUAY, "updated_tags": ["../../etc", "--rebind=x", "9@sha256:" + "0" * 64, "9"]}
    assert list(map(str, pushed_images(json.dumps(event).encode()))) == ["quay.io/htc/rocky:9"]
    many = {**QUAY, "updated_tags": [str(number) for number in range(5000)]}
    assert len(pushed_images(json.dumps(many).encode())) == 1000
