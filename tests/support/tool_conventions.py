"""Conventions for tools, as well-known models have them: how a template shows tools, calls and results."""

from tests.support.conventions import CONVENTIONS, Convention, _qwen
from tests.support.tokenizers import byte_level, metaspace, splitting_digits

_QWEN_HEAD = (
    "{% if tools %}<|im_start|>system\n{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}"
    "{% endif %}# Tools\n<tools>{% for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}\n</tools>\n"
    'Write <tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call><|im_end|>\n'
    "{% elif messages[0].role == 'system' %}{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{% endif %}"
)
_QWEN_CALLS = (
    "{% for tool_call in message.tool_calls %}{% set call = tool_call.function %}"
    '{{ \'\n<tool_call>\n{"name": "\' + call.name + \'", "arguments": \' + (call.arguments | tojson)'
    " + '}\n</tool_call>' }}{% endfor %}"
)
_QWEN_RESULTS = (
    "{% elif message.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\n<tool_response>\n' + message.content + '\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TOOL_CONVENTIONS: dict[str, Convention] = {
    "Qwen 2.5": Convention(
        _qwen, None, "<|im_end|>",
        _QWEN_HEAD + "{% for message in messages %}"
        "{% if message.role == 'user' or message.role == 'assistant' and not message.tool_calls"
        " or message.role == 'system' and not loop.first %}"
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
        "{% elif message.role == 'assistant' %}{{ '<|im_start|>assistant' }}"
        "{% if message.content %}{{ '\n' + message.content }}{% endif %}" + _QWEN_CALLS + "{{ '<|im_end|>\n' }}"
        + _QWEN_RESULTS,
        ("<|im_start|>",), written=("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    ),
    "Llama 3.1": Convention(
        splitting_digits, "<|begin_of_text|>", "<|eot_id|>",
        "{{ bos_token }}{% for m in messages %}"
        "{% set head = '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' %}"
        "{% if m.role == 'assistant' and 'tool_calls' in m %}"
        "{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}"
        "{{ head + '{\"name\": \"' + m.tool_calls[0].function.name + '\", \"parameters\": '"
        " + (m.tool_calls[0].function.arguments | tojson) + '}<|eot_id|>' }}"
        "{% elif m.role == 'tool' %}{{ '<|start_header_id|>ipython<|end_header_id|>\n\n' + (m.content | tojson)"
        " + '<|eot_id|>' }}"
        "{% elif m.role == 'user' and tools and loop.index0 == 0 %}{{ head + 'These can be called:\n\n' }}"
        "{% for t in tools %}{{ (t | tojson(indent=4)) + '\n\n' }}{% endfor %}{{ m.content | trim + '<|eot_id|>' }}"
        "{% else %}{{ head + m.content | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        ("<|start_header_id|>", "<|end_header_id|>"), begin=True,
    ),
    "Mistral 0.3": Convention(
        lambda: metaspace("first"), "<s>", "</s>",
        "{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'user' %}{% if tools and loop.index0 == 0 %}"
        "{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}"
        "{{ '[INST] ' + m.content + '[/INST]' }}"
        "{% elif m.tool_calls is defined %}{{ '[TOOL_CALLS] [' }}{% for call in m.tool_calls %}"
        "{% if call.id | length != 9 %}{{ raise_exception('ids have 9 characters') }}{% endif %}"
        "{{ (call.function | tojson)[:-1] + ', \"id\": \"' + call.id + '\"}' }}"
        "{{ ', ' if not loop.last else ']' + eos_token }}{% endfor %}"
        "{% elif m.role == 'tool' %}{{ '[TOOL_RESULTS] {\"content\": ' + m.content"
        " + ', \"call_id\": \"' + m.tool_call_id + '\"}[/TOOL_RESULTS]' }}"
        "{% elif m.role == 'assistant' %}{{ ' ' + m.content | trim + eos_token }}"
        "{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}",
        ("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
         "[/TOOL_RESULTS]"),
        begin=True, system=False,
    ),
    "DeepSeek": Convention(
        byte_level, "<|begin|>", "<|end|>",
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
        "{% for t in tools or [] %}{{ '\n' + t.function.name + ': ' + t.function.description + '\n' }}"
        "{{ t | tojson }}{% endfor %}"
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<|User|>' + m.content }}"
        "{% elif m.role == 'assistant' and m.tool_calls %}{{ '<|Assistant|>' + m.content + '<|calls|>' }}"
        "{% for call in m.tool_calls %}{{ '\n' if not loop.first else '' }}"
        "{{ '<|call|>' + call.type + '<|sep|>' + call.function.name + '\n```json\n' + call.function.arguments"
        " + '\n```<|/call|>' }}{% endfor %}{{ '<|/calls|>' + eos_token }}"
        "{% elif m.role == 'assistant' %}{{ '<|Assistant|>' + m.content + eos_token }}"
        "{% elif m.role == 'tool' %}{{ '<|result|>' + m.content + '<|/result|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}",
        ("<|User|>", "<|Assistant|>", "<|calls|>", "<|/calls|>", "<|call|>", "<|/call|>", "<|sep|>", "<|result|>",
         "<|/result|>"),
    ),
    "Phi-4": Convention(
        byte_level, None, "<|endoftext|>",
        "{% for m in messages %}{% if m.role == 'system' or (loop.first and tools) %}<|system|>"
        "{{ m.content if m.role == 'system' else '' }}{% if tools %}<|tool|>{{ tools | tojson }}<|/tool|>{% endif %}"
        "<|end|>{% endif %}{% if m.role == 'assistant' and m.tool_calls %}<|assistant|>{{ m.content }}<|tool_call|>["
        "{% for c in m.tool_calls %}{{ (c.function | tojson) + (', ' if not loop.last else '') }}{% endfor %}"
        "]<|/tool_call|><|end|>"
        "{% elif m.role == 'tool' %}<|tool_response|>{{ m.content }}<|end|>"
        "{% elif m.role != 'system' %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool|>", "<|/tool|>", "<|tool_response|>"),
        written=("<|tool_call|>", "<|/tool_call|>"),
    ),
    "Qwen 3": Convention(
        _qwen, None, "<|im_end|>",
        _QWEN_HEAD + "{% for message in messages %}"
        "{% if message.role == 'user' or message.role == 'system' and not loop.first %}"
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
        "{% elif message.role == 'assistant' %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + message.content }}"
        "{% if message.tool_calls %}{% for tool_call in message.tool_calls %}{% set call = tool_call.function %}"
        "{{ ('' if loop.first and not message.content else '\n') + '<tool_call>\n{\"name\": \"' + call.name"
        " + '\", \"arguments\": ' + (call.arguments | tojson) + '}\n</tool_call>' }}{% endfor %}{% endif %}"
        "{{ '<|im_end|>\n' }}" + _QWEN_RESULTS,
        ("<|im_start|>",),
        written=("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    ),
}  # fmt: skip

NO_JSON = Convention(
    _qwen, None, "<|im_end|>",
    _QWEN_HEAD + "{% for message in messages %}"
    "{% if message.role == 'user' or message.role == 'assistant' and not message.tool_calls"
    " or message.role == 'system' and not tools %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% elif message.role == 'assistant' %}<|im_start|>assistant\n{% for call in message.tool_calls %}"
    "{{ '<tool_call>\n<function=' + call.function.name + '>\n' }}"
    "{% for key in call.function.arguments %}"
    "{{ '<parameter=' + key + '>\n' + (call.function.arguments[key] | string) + '\n</parameter>\n' }}{% endfor %}"
    "{{ '</function>\n</tool_call>' }}{% endfor %}<|im_end|>\n" + _QWEN_RESULTS,
    ("<|im_start|>",),
)  # fmt: skip
"""Calls that are not JSON, which cannot be held to a schema: ours are used instead."""

ALL = {**CONVENTIONS, **TOOL_CONVENTIONS, "no JSON": NO_JSON}
