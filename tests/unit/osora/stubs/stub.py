"""Programs that stand in for the real ones, so that the supervisor is tested alone. STUB_* steers them:

STUB_SLOW_<NAME>: seconds before it serves. STUB_BROKEN: a name that ends with 3 at once.
STUB_KILLED: a name that is killed at once, as the system does where memory runs out.
STUB_REFUSES: a name that ends at once, as one does whose settings are wrong.
STUB_STUBBORN: a name that ignores SIGTERM. STUB_BREEDER: a name that leaves a process of its own behind.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def run(name: str) -> None:
    if os.environ.get("STUB_BROKEN") == name:
        sys.exit(f"{name} cannot start: the reason")
    if os.environ.get("STUB_KILLED") == name:
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("STUB_REFUSES") == name:
        print("Traceback: of a library", f"{name} cannot do that. Next: ask for less.", sep="\n", file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("STUB_STUBBORN") == name else _leave)
    if os.environ.get("STUB_BREEDER") == name:
        subprocess.Popen(["sleep", "600"])
    time.sleep(float(os.environ.get(f"STUB_SLOW_{name.upper()}", "0")))
    if name == "registry":
        Path(os.environ["OSORA_DATA_DIR"], "local.key").write_text("osk-stub\n")
        return
    if name == "worker":
        print("this is already a line", "worker ready", sep="\n", flush=True)
        while True:
            time.sleep(600)
    ports = {"api": "OSORA_PORT", "inference": "OSORA_INFERENCE_PORT", "console": "OSORA_CONSOLE_PORT"}
    ThreadingHTTPServer(("127.0.0.1", int(os.environ[ports[name]])), Handler).serve_forever()


def _leave(*_: Any) -> None:
    os._exit(0)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = 200
        if self.path == "/ready":  # the API's: it asks the inference server
            try:
                urllib.request.urlopen(os.environ["OSORA_INFERENCE_URLS"] + "/health", timeout=1).close()
            except OSError:
                status = 503
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b'{"data": []}' if self.path == "/bases" else b"{}")
