"""A CVMFS repository on its publisher host, changed by ``cvmfs_server``."""
