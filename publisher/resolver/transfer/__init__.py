"""Reading files from directories, web servers and Pelican federations."""
