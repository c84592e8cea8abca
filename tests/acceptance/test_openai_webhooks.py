"""OpenAI's own client sets up webhooks at the real service and believes what arrives, from either kind of client."""

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai as package
import pytest
from openai import AsyncOpenAI, InvalidWebhookSignatureError, OpenAI

from tests.acceptance.conftest import Service, dataset
from tests.support.webhooks import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key=service.key, max_retries=0, timeout=60) as client:
        yield client


def test_a_job_tells_how_it_ended(service: Service, client: OpenAI, receiver: Receiver, tmp_path: Path) -> None:
    types: Any = [*client.webhooks.event_types.list().data]
    endpoint = client.webhooks.create(name="all", url=receiver.url, event_types=types)
    file = client.files.create(file=dataset(tmp_path / "cities.jsonl", "Lima"), purpose="fine-tune")
    hyperparameters: Any = {"n_epochs": 1, "batch_size": 8}
    job = client.fine_tuning.jobs.create(
        model="osora-tiny",
        training_file=file.id,
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    )
    rotated = client.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True)
    events: dict[str, Any] = {}
    while len(events) < 2:  # what is not acknowledged in time comes again
        received = receiver.next()
        for secret in (endpoint.signing_secret, rotated.signing_secret):
            event = client.webhooks.unwrap(received.body, received.headers, secret=secret)
            events[event.type] = event
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(received.body, received.headers, secret="whsec_b3RoZXI=")
    assert events.keys() == {"adapter.published", "fine_tuning.job.succeeded"}
    succeeded = events["fine_tuning.job.succeeded"]
    assert isinstance(succeeded, package.types.webhooks.FineTuningJobSucceededWebhookEvent)
    assert succeeded.data.id == job.id
    assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"  # whoever is told so finds it so
    ended = service.sdk.jobs.get(job.id)
    published: Any = events["adapter.published"]
    assert published.data.id == ended["osora"]["adapter_id"]
    log = list(service.sdk.webhooks.deliveries(endpoint.id))
    assert {line["event_id"] for line in log} == {event.id for event in events.values()}
    assert client.webhooks.delete(endpoint.id).deleted


@pytest.mark.parametrize("kind", [OpenAI, AsyncOpenAI])
def test_the_life_of_an_endpoint(service: Service, receiver: Receiver, kind: Any) -> None:
    client = kind(base_url=f"{service.url}/v1", api_key=service.key, max_retries=0, timeout=60)
    with asyncio.Runner() as runner:

        def call(made: Any) -> Any:
            async def awaited() -> Any:
                return await made

            return runner.run(awaited()) if inspect.isawaitable(made) else made

        hooks = client.webhooks
        kinds = ["fine_tuning.job.failed"]
        endpoint = call(hooks.create(name="one", url=receiver.url, event_types=kinds))
        assert call(hooks.retrieve(endpoint.id)).event_types == kinds
        assert call(hooks.update(endpoint.id, name="another")).name == "another"
        assert call(hooks.list(limit=1)).data[0].id == endpoint.id
        result = call(hooks.test(endpoint.id, event_type="fine_tuning.job.failed"))
        assert (result.status_code, result.success) == (200, True)
        received = receiver.next()
        event = hooks.unwrap(received.body, received.headers, secret=endpoint.signing_secret)
        assert event.type == "fine_tuning.job.failed"
        with pytest.raises(package.BadRequestError) as refused:
            call(hooks.create(name="one", url="https://169.254.169.254/", event_types=kinds))
        assert refused.value.param == "url"
        with pytest.raises(package.BadRequestError) as unknown:
            call(hooks.update(endpoint.id, event_types=["batch.completed"]))
        assert "fine_tuning.job.succeeded" in unknown.value.message
        assert call(hooks.delete(endpoint.id)).object == "webhook_endpoint.deleted"
        with pytest.raises(package.NotFoundError):
            call(hooks.retrieve(endpoint.id))
        call(client.close())
