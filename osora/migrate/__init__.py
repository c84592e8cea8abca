"""The way out of another service: bring its jobs here, record what its models say, compare."""
