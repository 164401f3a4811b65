"""A publisher of container images to CVMFS and OSDF, and the resolver of execution points (:mod:`publisher.resolver`)."""

__version__ = "0.1.0"
