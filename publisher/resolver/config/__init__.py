"""The settings of the resolver: flags, environment and resolver.ini."""
