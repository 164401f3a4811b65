"""Layers in, one tree out: index, flatten, emit."""
