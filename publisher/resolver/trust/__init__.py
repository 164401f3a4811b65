"""Which manifest holds: signatures, serials, copies kept for an outage."""
