"""What the operator says of single registries, mirrors and rates: a mapping in the configuration, or words in a flag.

A flag or variable has ``registry=value`` with commas between; a registry that stands there twice has two mirrors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.contract import reference
from publisher.contract.errors import InvalidReferenceError
from publisher.registry import endpoints

if TYPE_CHECKING:
    from collections.abc import Iterator

_FASTEST = 100_000.0  # requests per second


def mirrors(value: object) -> dict[str, tuple[str, ...]]:
    """Registry -> URLs of its mirrors, in the order in which they are asked.

    Raises:
        ValueError: it is something else, or they are no mirrors.
    """
    found: dict[str, tuple[str, ...]] = {}
    for registry, given in _pairs(value, "docker.io: [https://mirror.example]"):
        urls = tuple(map(str, given if isinstance(given, list | tuple) else [given]))
        if registry in {endpoints.mirror(url).name for url in urls}:
            raise ValueError(f"{registry} cannot be its own mirror; leave it out")
        found[registry] = (*found.get(registry, ()), *urls)
    return found


def rates(value: object) -> dict[str, float]:
    """Registry or mirror -> requests per second.

    Raises:
        ValueError: it is something else.
    """
    return {registry: _rate(registry, given) for registry, given in _pairs(value, "docker.io: 10")}


def _rate(registry: str, given: object) -> float:
    try:
        rate = float(given) if isinstance(given, str | int | float) and not isinstance(given, bool) else 0.0
    except (ValueError, OverflowError):
        rate = 0.0
    if not 0 < rate <= _FASTEST:
        raise ValueError(f"{given!r} is no rate for {registry}; write requests per second, such as 10 or 0.5")
    return rate


def _pairs(value: object, example: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, str):
        words = [word.partition("=") for word in value.split(",")]
        pairs: list[tuple[object, object]] = [(name.strip(), given.strip()) for name, _, given in words]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        raise ValueError(f"registries are expected here, such as {example}")  # noqa: TRY004 - pydantic collects ValueErrors
    for name, given in pairs:
        try:
            found = reference.parse(f"{name}/a/b")
        except InvalidReferenceError:
            found = None
        if found is None or found.repository != "a/b":
            raise ValueError(f"{name!r} is no registry; write {example}")
        yield found.registry, given
