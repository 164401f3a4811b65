"""The client for OCI registries: digests, image manifests, tags and blobs."""
