"""The cache of SIFs on this host's disk: entries, pins, counters and eviction."""
