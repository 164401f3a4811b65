"""The keys that sign the manifest: in a file, in a token, or behind a program; and the keys document that lets them."""
