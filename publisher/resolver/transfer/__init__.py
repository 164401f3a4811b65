"""Files from directories, web servers and federations."""
