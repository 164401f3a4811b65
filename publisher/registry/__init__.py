"""The client of OCI registries: digests, manifests, tags and blobs."""
