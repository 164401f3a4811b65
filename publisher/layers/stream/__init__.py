"""The tar stream of a layer: of its blob, decompressed, or of its uncompressed copy."""
