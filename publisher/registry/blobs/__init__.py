"""The blob store: blobs by digest, each layer with its header index."""
