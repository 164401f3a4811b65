"""What publisher and execution point share: the manifest's format, references, units, files. Standard library, Python 3.9."""
