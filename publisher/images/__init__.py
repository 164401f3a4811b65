"""The image list: images.yaml, parsed and checked into entries and tag patterns."""
