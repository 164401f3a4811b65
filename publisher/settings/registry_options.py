"""Settings with a value for each registry: mirrors and request rates.

In publisher.yaml they are mappings. A flag or environment variable has ``REGISTRY=VALUE`` pairs with commas between them; a
registry that appears twice has two mirrors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.contract import reference
from publisher.contract.errors import InvalidReferenceError
from publisher.registry import endpoints

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_RATE = 100_000.0  # requests per second


def parse_mirrors(value: object) -> dict[str, tuple[str, ...]]:
    """Return registry -> URLs of its mirrors, in the order in which they are asked.

    Raises:
        ValueError: the value is not a mapping, or a registry or mirror in it is not valid.
    """
    mirrors: dict[str, tuple[str, ...]] = {}
    for registry, given in _pairs(value, "docker.io: [https://mirror.example]"):
        urls = tuple(map(str, given if isinstance(given, list | tuple) else [given]))
        if registry in {endpoints.parse_mirror(url).name for url in urls}:
            raise ValueError(f"{registry} cannot be its own mirror; leave it out")
        mirrors[registry] = (*mirrors.get(registry, ()), *urls)
    return mirrors


def parse_rates(value: object) -> dict[str, float]:
    """Return registry or mirror -> requests per second.

    Raises:
        ValueError: the value is not a mapping, or a registry or rate in it is not valid.
    """
    return {registry: _parse_rate(registry, given) for registry, given in _pairs(value, "docker.io: 10")}


def _parse_rate(registry: str, given: object) -> float:
    try:
        rate = float(given) if isinstance(given, str | int | float) and not isinstance(given, bool) else 0.0
    except (ValueError, OverflowError):
        rate = 0.0
    if not 0 < rate <= _MAX_RATE:
        raise ValueError(f"{given!r} is not a valid rate for {registry}; write requests per second, such as 10 or 0.5")
    return rate


def _pairs(value: object, example: str) -> Iterator[tuple[str, object]]:
    """Yield each registry's canonical name with its value; ``example`` is what an error tells the operator to write."""
    if isinstance(value, str):
        words = [word.partition("=") for word in value.split(",")]
        pairs: list[tuple[object, object]] = [(name.strip(), given.strip()) for name, _, given in words]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        raise ValueError(f"registries with their values are expected here, such as {example}")  # noqa: TRY004 - pydantic collects ValueErrors
    for name, given in pairs:
        try:
            parsed = reference.parse(f"{name}/a/b")
        except InvalidReferenceError:
            parsed = None
        if parsed is None or parsed.repository != "a/b":
            raise ValueError(f"{name!r} is not a valid registry; write {example}")
        yield parsed.registry, given
