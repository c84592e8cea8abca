"""Anthropic's `POST /v1/messages`: translation only. What it does is done by what the native route calls."""
