"""Listens for push events of registries, and syncs the images that they name; the timer's sync goes on underneath."""
