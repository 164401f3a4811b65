"""The trusted manifest: its signatures and serials, and the cached copies for outages."""
