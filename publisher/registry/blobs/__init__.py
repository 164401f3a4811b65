"""The content store: blobs by their digest, each layer with its header index."""
