"""Settings of notices: addresses of mail, webhooks, and the program that sends mail."""

from __future__ import annotations

import shlex
from urllib.parse import urlsplit

from publisher.notices.addresses import JSON_HOOK, SLACK_HOOK, Webhook, is_address

_SLACK = "slack:"


def parse_address(value: object) -> str:
    """Return an address of mail. Raise ValueError if it is none."""
    text = str(value).strip()
    if not is_address(text):
        raise ValueError(f"{text!r} is not an address; write NAME@HOST alone")
    return text


def parse_addresses(value: object) -> tuple[str, ...]:
    """Return addresses from a list, or from a text with commas between them. Raise ValueError if one is none."""
    return tuple(map(parse_address, _split(value)))


def parse_owners(value: object) -> dict[str, str]:
    """Return owner -> address, from a mapping or from ``OWNER=ADDRESS`` with commas between.

    Raises:
        ValueError: the value is neither, or an address is none.
    """
    if isinstance(value, dict):
        return {str(owner): parse_address(address) for owner, address in value.items()}
    pairs = [word.partition("=") for word in _split(value)]
    return {owner.strip(): parse_address(address) for owner, _, address in pairs}


def parse_webhooks(value: object) -> tuple[Webhook, ...]:
    """Return webhooks from a list, or from a text with commas between them.

    Raises:
        ValueError: one is no URL of a server. The message does not repeat it, because it may be a secret.
    """
    return tuple(map(_parse_webhook, _split(value)))


def _parse_webhook(text: str) -> Webhook:
    form, url = (SLACK_HOOK, text.removeprefix(_SLACK)) if text.startswith(_SLACK) else (JSON_HOOK, text)
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("a webhook is not a URL; write https://HOST/PATH, or slack:https://HOST/PATH")
    return Webhook(form, url)


def parse_command(value: object) -> str:
    """Return a program with its arguments, quoted as in a shell; no shell runs it. Raise ValueError if it is empty."""
    text = str(value)
    if not shlex.split(text):
        raise ValueError("the name of a program is missing")
    return text


def _split(value: object) -> list[str]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if not isinstance(value, list | tuple):
        raise ValueError("a list is expected here")  # noqa: TRY004 - pydantic collects ValueErrors
    return [str(part).strip() for part in value]
