"""Builders that are not this host: each SIF is built by a job of an HTCondor pool, and verified here before it is published."""
