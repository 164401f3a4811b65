"""The image list: from images.yaml to entries and patterns."""
