"""Publishes container images to CVMFS and OSDF, and resolves them on execution points (``publisher.resolver``)."""

__version__ = "0.1.0"
