"""What lies beside a GGUF file, for who unpacks it."""

from string import Template

_README = Template(
    """\
# $name

`$name.gguf` is the base $base with an adapter trained by Osora folded in: one file of $size, for llama.cpp and for
what is built on it. Tokenizer and chat template are in it.

## llama.cpp

```text
llama-cli -m $name.gguf -c $length --temp 0 --jinja        # a chat
llama-server -m $name.gguf -c $length --temp 0 --jinja     # an API as OpenAI's
```

`--temp 0` is how Osora answers where a request says nothing else.

## Ollama

```text
ollama create $name -f Modelfile
ollama run $name
```

## Smaller

```text
llama-quantize $name.gguf $name-Q8_0.gguf Q8_0
```

halves a file of 16 bits a weight; Q4_K_M takes a third to a quarter. Answers change with it, so ask for what the
adapter was trained on before and after. For Ollama, put the new file's name into the Modelfile.

## What is exact

Up to $length tokens, prompt and answer together, llama.cpp computes what Osora does. It rounds other values on the way,
so two tokens that are almost equally likely may change places. Do not raise `-c`: beyond it lies what the base was not
trained for, or a window of attention that llama.cpp does not have for this base.
"""
)


def describe(name: str, base: str, *, bytes: int, length: int) -> str:
    """The text for the file `name`.gguf, exact up to `length` tokens."""
    size = f"{bytes / 1e9:.1f} GB" if bytes >= 1e9 else f"{max(1, round(bytes / 1e6))} MB"
    return _README.substitute(name=name, base=base, size=size, length=length)
