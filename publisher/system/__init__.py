"""The operating system: other programs, durable files, safe paths, YAML files, logs and progress bars."""
