"""Bounds on what a request may list, and what they cost."""

from typing import Any

import pytest
from pydantic import ValidationError

from api.generate.schemas import GenerateRequest
from api.jobs.queries import JobsQuery
from api.jobs.requests import CreateJob
from api.keys.schemas import CreateKey
from api.openai.chat.schemas import ChatRequest
from api.openai.completions.schemas import CompletionRequest
from api.schemas import QueryModel, RequestModel

JOB = {"model": "osora-tiny", "training_file": "file-1"}
MANY = 90_000


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (CreateJob, {**JOB, "osora": {"learning_rate": [float(n + 1) for n in range(MANY)]}}),
        (CreateJob, {**JOB, "osora": {"sigma_rate": ["x"] * MANY}}),
        (CreateJob, {**JOB, "osora": {"target_modules": [0] * MANY}}),
        (CreateJob, {**JOB, "osora": {"sample_prompts": [""] * MANY}}),
        (CreateJob, {**JOB, "metadata": {str(n): 0 for n in range(MANY)}}),
        (GenerateRequest, {"messages": [0] * MANY}),
        (GenerateRequest, {"prompt": "a", "stop": [""] * MANY}),
        (GenerateRequest, {"prompt": "a", "stop_tokens": ["x"] * MANY}),
        (GenerateRequest, {"prompt": "a", "logit_bias": {f"a{n}": "x" for n in range(MANY)}}),
        (GenerateRequest, {"prompt": "a", "json_schema": {"enum": list(range(MANY))}}),
        (GenerateRequest, {"prompt": "a", "regex": "a" * MANY}),
        (ChatRequest, {"model": "a", "messages": [0] * MANY}),
        (ChatRequest, {"model": "a", "messages": [{"role": "user", "content": [0] * MANY}]}),
        (CompletionRequest, {"model": "a", "prompt": ["a"] * MANY}),
        (CreateKey, {"name": "k", "scopes": ["root"] * MANY}),
        (JobsQuery, {f"metadata[{n}]": "x" for n in range(MANY)}),
    ],
)
def test_a_long_list_is_refused_for_its_length(model: type[RequestModel | QueryModel], body: Any) -> None:
    """One finding for each branch of a union, not one for each item."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    findings = caught.value.errors(include_input=False, include_url=False)
    assert len(findings) <= 3
    assert any("at most" in finding["msg"] for finding in findings)


@pytest.mark.parametrize("model", [CreateJob, GenerateRequest, ChatRequest, CompletionRequest, CreateKey])
def test_every_list_in_a_request_has_a_bound(model: type[RequestModel]) -> None:
    document = model.model_json_schema()
    unbounded = [
        f"{name}.{field}"
        for name, definition in {model.__name__: document, **document.get("$defs", {})}.items()
        for field, schema in definition.get("properties", {}).items()
        for branch in [schema, *schema.get("anyOf", [])]
        if (branch.get("type") == "array" and "maxItems" not in branch)
        or (
            branch.get("type") == "object"
            and "maxProperties" not in branch
            and field not in ("json_schema", "schema", "parameters")
        )
    ]
    assert unbounded == []


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (CreateJob, {**JOB, "hyperparameters": {}, "osora": {}}),
        (CreateJob, {**JOB, "method": {"type": "dpo", "dpo": {"hyperparameters": {}}}}),
        (GenerateRequest, {"prompt": "a"}),
        (ChatRequest, {"model": "a", "messages": [{"role": "user", "content": "b"}]}),
        (CompletionRequest, {"model": "a", "prompt": "b"}),
        (CreateKey, {"name": "k"}),
    ],
)
def test_null_is_what_leaving_a_field_out_is(model: type[RequestModel], body: dict[str, Any]) -> None:
    def with_nulls(model: Any, body: dict[str, Any]) -> dict[str, Any]:
        optional = (name for name, field in model.model_fields.items() if not field.is_required())
        return {**dict.fromkeys(optional), **body}

    assert model.model_validate(with_nulls(model, body)) == model.model_validate(body)


def test_null_inside_is_left_out_too() -> None:
    nulls = {"n_epochs": None, "batch_size": None, "learning_rate_multiplier": None}
    assert CreateJob.model_validate({**JOB, "hyperparameters": nulls}).hyperparameters is not None


@pytest.mark.parametrize("field", ["training_file", "model"])
def test_null_is_no_value_of_what_is_required(field: str) -> None:
    with pytest.raises(ValidationError):
        CreateJob.model_validate({**JOB, field: None})
