"""Attacks on a live service, beside a tenant that goes on working."""
