"""Other tools' lists turned into images.yaml."""
