"""Origins: immutable objects named by their content, and one mutable index."""
