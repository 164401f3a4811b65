"""The client of a Pelican federation's origin: discovery, director, tokens, WebDAV."""
