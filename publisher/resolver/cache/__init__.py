"""SIFs on this host's disk: entries, pins, eviction."""
