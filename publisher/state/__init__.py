"""The published state as values: the records of the manifest, the paths of all data, the signing key."""
