"""Repositories that sandboxes are published in: a plain directory, or a CVMFS repository."""
