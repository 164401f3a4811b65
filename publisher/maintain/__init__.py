"""Maintenance of what is published: garbage collection, blocking, verification, origin audits, adoption."""
