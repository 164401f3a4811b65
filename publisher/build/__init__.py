"""Builds: from an image's layers to a tested SIF, and from the SIF to a sandbox."""
