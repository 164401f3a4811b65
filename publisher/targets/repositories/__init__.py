"""Repositories: trees of sandboxes, changed by transactions."""
