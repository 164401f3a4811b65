"""What is done once per host: probes, HTCondor's configuration, care of the cache."""
