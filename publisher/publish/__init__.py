"""A run: from references to builds, from builds to one transaction, and the manifest in both places."""
