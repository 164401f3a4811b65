"""SIFs that others made: what their bytes must be like to be published, and the files that they have."""
