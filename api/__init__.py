"""The HTTP API: parses, authorises, calls the registry once, answers. Knows no torch."""
