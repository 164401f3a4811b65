"""Importers that turn other tools' lists into images.yaml."""
