"""The receiver that docs/webhooks.md shows is run as it stands, and told of a job."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from api.webhooks.sender import Sender
from registry.webhooks import EVENT_TYPES, Answer, Delivery
from registry.webhooks.delivering import MAX_ATTEMPTS
from tests.integration.api.servers import running

PAGE = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_receiver(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "FastAPI" in code)
    assert len([line for line in program.splitlines() if line]) <= 10
    defined: dict[str, Any] = {}
    exec(program.replace("whsec_…", SECRET), defined)

    async def send(url: str, secret: str) -> Answer:
        event = {"id": "evt_1", "object": "event", "created_at": 1, "type": EVENT_TYPES[0], "data": {"id": "ftjob-1"}}
        sender = Sender(allow_private=True)
        try:
            return await sender.send(
                Delivery("wh_1", "webhook-1", 1, f"{url}/osora", json.dumps(event).encode(), (secret,))
            )
        finally:
            await sender.close()

    with running(uvicorn.Server(uvicorn.Config(defined["app"], port=0, log_level="critical", loop="asyncio"))) as url:
        assert asyncio.run(send(url, SECRET)).status_code == 200
        assert asyncio.run(send(url, "whsec_b3RoZXI=")).status_code == 500
    assert "done: ftjob-1" in capsys.readouterr().out


def test_every_type_of_event_is_told_of() -> None:
    for event_type in EVENT_TYPES:
        last = event_type.rpartition(".")[2]
        assert f"`{event_type}`" in PAGE or f"`.{last}`" in PAGE


def test_the_number_of_attempts() -> None:
    assert MAX_ATTEMPTS == 11
    assert "eleven attempts" in PAGE
