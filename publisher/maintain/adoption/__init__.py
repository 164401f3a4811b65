"""Adoption of a repository of the older tool (cvmfs-singularity-sync), and its undo."""
