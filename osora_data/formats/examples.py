"""How a row is written, for the advice in problems."""

CHAT = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'
COMPLETION = '{"prompt": "…", "completion": "…"}'
ANSWER = '[{"role": "assistant", "content": "…"}]'
PREFERENCE = (
    '{"input": {"messages": [{"role": "user", "content": "…"}]}, '
    f'"preferred_output": {ANSWER}, "non_preferred_output": {ANSWER}}}'
)
PAIR = '{"prompt": "…", "chosen": "…", "rejected": "…"}'
TOOL = '{"type": "function", "function": {"name": "…", "description": "…", "parameters": {"type": "object", …}}}'
CALL = '{"id": "call_1", "type": "function", "function": {"name": "…", "arguments": "{…}"}}'
AS_TEXT = f"write each line as {CHAT} or {COMPLETION}"
