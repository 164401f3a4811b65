"""Where images are published: repositories (CVMFS) and origins (OSDF)."""
