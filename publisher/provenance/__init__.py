"""Provenance: what is attached to an image in its registry, and whose signatures of it can be verified."""
