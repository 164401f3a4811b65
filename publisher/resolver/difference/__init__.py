"""SIFs put together from ranges of the SIF in the origin and from chunks of other SIFs that this host has."""
