"""Our programs say when they serve, and end well when they are told to."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import uvicorn
from osora_common.http_server import ReadyServer, exit_on_signals

async def app(scope, receive, send):
    pass

exit_on_signals()
ReadyServer(uvicorn.Config(app, port=0, log_level="critical", loop="asyncio", lifespan="off")).run()
raise SystemExit(7)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_says_ready_and_a_signal_ends_it_with_0(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
