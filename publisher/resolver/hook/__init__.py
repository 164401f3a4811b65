"""HTCondor's hooks ``prepare-job`` and ``job-exit``."""
