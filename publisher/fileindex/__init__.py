"""The file index of a published tree: its format, external sorting, and the differences between two indexes."""
