"""The keys that rows of all formats may have."""

COLUMNS = frozenset(
    (
        *("messages", "tools", "parallel_tool_calls", "functions", "function_call"),
        *("prompt", "completion", "label", "text"),
        *("input", "preferred_output", "non_preferred_output", "chosen", "rejected"),
        *("instruction", "output", "system", "history", "conversations"),
    )
)
