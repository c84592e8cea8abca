"""The decoder families that Osora wires by itself, where transformers' own forward is not the fastest."""

# Their layers have the same parts: norm, rotary attention (with a norm on q and k or a bias where the module has one),
# norm, gated MLP.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
