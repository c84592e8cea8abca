"""OpenAI's paths under `/v1`: translation only. What they do is done by what the native routes call."""
