"""The command ``publisher``."""
