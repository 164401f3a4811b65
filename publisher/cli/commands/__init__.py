"""The commands of ``publisher``: one module for those that belong together."""
