"""SIFs at URLs: one file each, fetched without credentials."""
