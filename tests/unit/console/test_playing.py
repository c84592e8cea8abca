"""One prompt, several models."""

import asyncio
from typing import Any

import httpx

from console.kept_rows import KeptRows, Said
from console.playing import Answer, Seat, Settings, ask
from osora.errors import OsoraAPIError
from tests.unit.console.answers import client, refused, streamed

SCORE = {
    "id": 1,
    "token": "bil",
    "bytes": [],
    "logprob": -0.6931472,
    "top_logprobs": [{"token": "log", "logprob": -2.3}],
}


def asked(seat: Seat, settings: Settings, answer: httpx.Response) -> tuple[Answer, dict[str, Any], list[str]]:
    """The answer, what was sent, and the texts that were shown."""
    bodies: list[dict[str, Any]] = []
    shown: list[str] = []

    def reply(body: dict[str, Any]) -> httpx.Response:
        bodies.append(body)
        return answer

    messages = seat.asked("Be brief.", "Hi", is_chat=True)
    found = asyncio.run(ask(client(reply), seat, messages, settings, lambda now: shown.append(now.text)))
    return found, bodies[0], shown


def test_an_adapter_is_asked_with_its_strength_and_a_base_by_its_name() -> None:
    settings = Settings(max_tokens=9, temperature=0.5, seed=3, probabilities=False)
    _, body, _ = asked(Seat("adp-1", strength=0.5), settings, streamed("Hello"))
    assert {
        "adapter_id": "adp-1",
        "strength": 0.5,
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 3,
    }.items() <= body.items()
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    _, body, _ = asked(Seat("tiny", is_base=True), Settings(probabilities=False), streamed("Hello"))
    assert body["base"] == "tiny"
    assert not {"adapter_id", "strength", "logprobs", "top_p"} & body.keys()


def test_the_whole_answer_is_shown_at_the_end_with_time_probabilities_and_receipt() -> None:
    done = {
        "usage": {"completion_tokens": 2},
        "timing": {"first_token_ms": 12.4, "total_ms": 50.0},
        "receipt": {"adapter_id": "adp-1", "alias": None, "strength": 1.0},
        "choices": [{"index": 0, "logprobs": [SCORE]}],
        "finish_reason": "length",
    }
    answer, body, shown = asked(Seat("adp-1"), Settings(), streamed("bil", "ling", **done))
    assert (body["logprobs"], body["top_logprobs"]) == (True, 5)
    assert shown[-1] == answer.text == "billing"
    assert answer.timing() == "2 tokens · first after 12 ms · 50 ms in all · 40 tokens/s · cut at the limit"
    assert answer.receipt() == [("adapter id", "adp-1"), ("strength", "1.0")]
    assert answer.tokens() == [{"text": "bil", "share": 0.5, "others": [{"text": "log", "share": 0.1003}]}]
    assert answer.is_over


def test_a_refusal_is_a_part_of_the_answer() -> None:
    answer, _, _ = asked(Seat("adp-1"), Settings(), refused(404, "no adapter 'adp-1'"))
    assert isinstance(answer.error, OsoraAPIError)
    assert answer.error.message == "no adapter 'adp-1'"
    assert answer.is_over


def test_each_model_goes_on_from_its_own_answers() -> None:
    seat = Seat("adp-1")
    seat.remember("Hi", "Hello")
    assert seat.asked("", "And?", is_chat=True) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
    ]
    assert seat.asked("Be brief.", "Once", is_chat=False) == "Once"


def test_a_conversation_is_kept_as_a_training_row_with_the_answer_as_it_should_be() -> None:
    seat, kept = Seat("adp-1"), KeptRows()
    seat.remember("Grüße", "Helo")
    kept.keep(Said("Grüße", "Be brief.", tuple(seat.turns)), "Hello")
    kept.keep(Said("Once", is_chat=False), " upon")
    assert kept.jsonl().decode().splitlines() == [
        '{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße"}, '
        '{"role": "assistant", "content": "Hello"}]}',
        '{"prompt": "Once", "completion": " upon"}',
    ]
