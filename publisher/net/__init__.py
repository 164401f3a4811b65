"""HTTP for registries and origins: the event loop, retries, proxies, responses and failures."""
