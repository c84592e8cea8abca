"""Bases that are added to a running service, beside those of OSORA_BASES, and removed from it."""
