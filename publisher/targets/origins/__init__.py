"""Origins that SIFs and the manifest are fetched from: a plain directory, or an origin of a Pelican federation."""
