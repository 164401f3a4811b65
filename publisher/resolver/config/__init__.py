"""The settings of the resolver: command line, environment and configuration file."""
