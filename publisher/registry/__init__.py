"""Any OCI distribution registry, asked politely: digests, manifests and blobs, verified or refused.

``client`` is what others use; below it ``transport`` sends one request (redirects, deadlines, bounds), ``authority`` knows
what each registry wants to see (``challenge``, ``credentials``). What is tried again and when is :mod:`publisher.network`'s.
"""

from __future__ import annotations

from publisher.registry.client import RegistryClient
from publisher.registry.credentials import Credentials, anonymous, docker_credentials

__all__ = ["Credentials", "RegistryClient", "anonymous", "docker_credentials"]
