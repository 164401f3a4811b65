"""The file index of a published tree: its format, its order, and what differs between two of them."""
