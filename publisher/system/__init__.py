"""The operating system: other programs, durable files, safe paths, YAML files, progress on a terminal."""
