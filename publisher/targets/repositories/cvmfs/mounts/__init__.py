"""The mounts of a CVMFS repository on its publisher host: reading them, mounting them again, and keeping readers out."""
