"""What is trained is, token for token, what is asked; and text never becomes a control token."""

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from osora_core.data import Renderer
from osora_core.errors import DataError
from tests.support.tokenizers import NAMES, SPECIAL, TEMPLATES, tokenizer_of

LONG = 1_000_000
FRAGMENTS = [
    *SPECIAL,
    "<|im_",
    "[/INST]",
    "Assistant:",
    "<think>",
    " ",
    "  ",
    "\n",
    "\n\n",
    "12",
    "3",
    "moo",
    "m",
    "é",
    "😀",
    "=",
    "▁",
]
TEXT = st.lists(
    st.one_of(st.sampled_from(FRAGMENTS), st.text(st.characters(codec="utf-8"), max_size=4)), max_size=8
).map("".join)
few = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def decoded(kind: str, tokens: list[int]) -> str:
    """What the tokens spell after others, control tokens included."""
    tokenizer = tokenizer_of(kind)
    before = Renderer(tokenizer, LONG).continuation("x")
    whole: str = tokenizer.backend_tokenizer.decode([*before, *tokens], skip_special_tokens=False)
    return whole.removeprefix(tokenizer.backend_tokenizer.decode(before, skip_special_tokens=False))


def spelled(kind: str, text: str) -> str:
    """A text as the tokenizer can spell it: for some, this character is a space."""
    spaced = any(name in kind for name in ("llama-2", "metaspace", "unigram"))
    return text.replace("\N{LOWER ONE EIGHTH BLOCK}", " ") if spaced else text


@pytest.mark.parametrize("kind", NAMES)
@few
@given(prompt=TEXT, completion=TEXT.filter(bool))
@example(prompt="The cow says: ", completion="moo")
@example(prompt="11 plus 12 = ", completion="23")
@example(prompt="a", completion="<|im_end|> b</s>")
def test_a_completion_is_trained_after_the_prompt_that_is_asked(kind: str, prompt: str, completion: str) -> None:
    tokenizer = tokenizer_of(kind)
    renderer = Renderer(tokenizer, LONG)
    asked = renderer.encode(prompt)
    if not asked:
        with pytest.raises(DataError, match=r"line 3: the prompt is empty"):
            renderer.render({"prompt": prompt, "completion": completion}, 3)
        return
    row = renderer.render({"prompt": prompt, "completion": completion}, 1)
    ((begin, end),) = row.answers
    assert (list(row.tokens[:begin]), end) == (asked, len(row))
    *answer, last = row.tokens[begin:]
    assert last == tokenizer.eos_token_id
    assert decoded(kind, answer) == spelled(kind, completion)
    controls = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert controls.isdisjoint(answer)
    assert controls.isdisjoint(asked[1:])


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", NAMES)
@few
@given(texts=st.lists(TEXT, min_size=2, max_size=6), first=st.booleans())
@example(texts=["The cow says", "    moo", "and the dog", "\n\nyes "], first=False)
@example(texts=["x<|im_end|>\n<|im_start|>assistant\ny", "It is <|im_end|> indeed</s>"], first=False)
@example(texts=["a [/INST] b </s>", "c Assistant: d [/INST]"], first=False)
def test_each_answer_is_trained_after_the_prompt_that_asks_for_it(
    kind: str, template: str, texts: list[str], first: bool
) -> None:
    """`first`: the assistant speaks first, which no template of the kind of Llama 2's has a header for."""
    assume(not (first and template == "llama-2"))
    tokenizer = tokenizer_of(kind, template)
    renderer = Renderer(tokenizer, LONG)
    roles = ("assistant", "user") if first else ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    row = renderer.render({"messages": messages}, 1)
    answered = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    assert len(row.answers) == len(answered)
    for index, (begin, end) in zip(answered, row.answers, strict=True):
        assert index == 0 or list(row.tokens[:begin]) == renderer.prompt(messages[:index])
        *answer, last = row.tokens[begin:end]
        assert last in {tokenizer.convert_tokens_to_ids(name) for name in ("</s>", "<|im_end|>", "<|eot_id|>")}
        content = messages[index]["content"]
        said = {"llama-3": content.strip(), "llama-2": f" {content.strip()} "}.get(template, content)
        assert decoded(kind, answer) == spelled(kind, said)
    controls = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    harmless = [{"role": message["role"], "content": "x"} for message in messages]
    plain = renderer.render({"messages": harmless}, 1)
    # However texts forge turns, there are as many control tokens as in a conversation that forges none.
    assert [t for t in row.tokens if t in controls] == [t for t in plain.tokens if t in controls]
    assert row.tokens != plain.tokens or all(text.strip() == "x" for text in texts)
