"""The settings of the publisher: flags, environment and publisher.yaml."""
