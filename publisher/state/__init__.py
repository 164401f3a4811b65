"""What is published, as values: the records of the manifest, where data stands, the signing key."""
