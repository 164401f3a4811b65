"""Assembles the parts of a run from the settings: targets, registries, and the run itself."""
