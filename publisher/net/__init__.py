"""HTTP as registries and origins share it: the event loop, retries, proxies, responses and failures."""
