"""What is done once per host: measurements, HTCondor's configuration, and cache administration."""
