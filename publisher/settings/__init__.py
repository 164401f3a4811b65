"""The publisher's settings: flags override environment variables, which override publisher.yaml, which overrides the defaults."""
