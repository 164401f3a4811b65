"""A repository of cvmfs-singularity-sync, taken over and given back."""
