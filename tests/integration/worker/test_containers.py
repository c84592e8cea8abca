"""A job learns the same from the same rows, whatever file they came in."""

import gzip
import io
from collections.abc import Callable
from typing import Any

import pytest

from registry import files
from registry.context import Registry
from registry.models import Job
from registry.tenants import Principal
from tests.support.jobs import read
from tests.support.training_files import csv_table, json_array, json_lines, parquet_table

Upload = Callable[[bytes], str]
CHATS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"help {i}"}, {"role": "assistant", "content": "order"}]}
    for i in range(12)
]
SHAREGPT = [
    {"conversations": [{"from": "human", "value": f"help {i}"}, {"from": "gpt", "value": "order"}]} for i in range(12)
]


@pytest.fixture
def store(registry: Registry, principal: Principal) -> Upload:
    return lambda data: files.ingest(registry, principal, io.BytesIO(data), "rows.jsonl", "fine-tune").id


def test_all_containers_and_formats_teach_the_same(
    train: Callable[..., Job], store: Upload, registry: Registry, principal: Principal
) -> None:
    curves = set()
    for data in (
        json_lines(CHATS),
        gzip.compress(csv_table(CHATS)),
        json_array(CHATS),
        parquet_table(CHATS),
        gzip.compress(json_array(SHAREGPT)),
    ):
        job = train(training_file=store(data), validation_file=store(data))
        assert job.status == "succeeded", job.error
        with registry.reading() as session:
            curve = files.get(session, principal, job.result_file_ids[0])
        curves.add(registry.store.get(curve.object_key))
    assert len(curves) == 1


def test_plain_text_is_learned_to_its_end(
    train: Callable[..., Job], store: Upload, registry: Registry, principal: Principal
) -> None:
    texts = csv_table([{"text": f"help {i} order"} for i in range(12)])
    job = train(training_file=store(texts), osora={"sample_prompts": ["help"]})
    job = read(registry, principal, job)
    assert job.status == "succeeded", job.error
    assert job.trained_tokens
