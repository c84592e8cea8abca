"""What is found on a machine."""

import resource
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from osora.doctor import machine
from osora.doctor.machine import check_broker, check_data_dir, check_device, check_memory, check_ports
from osora.serve.broker import NoRedisError


def test_a_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_data_dir(tmp_path).ok
    later = check_data_dir(tmp_path / "a" / "b")
    assert later.ok
    assert "made at the first start" in later.message
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    assert not check_data_dir(tmp_path / "file" / "below").ok
    monkeypatch.setattr(machine, "_LEAST_DISK", 2**80)
    assert "make room" in str(check_data_dir(tmp_path).next_action)


def test_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_broker().ok

    def none() -> None:
        raise NoRedisError

    monkeypatch.setattr(machine, "find_binary", none)
    assert "install one" in str(check_broker().next_action)


def test_ports(tmp_path: Path) -> None:
    assert check_ports(tmp_path, {}).ok
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name in ("OSORA_PORT", "OSORA_INFERENCE_PORT"):
            found = check_ports(tmp_path, {name: str(port)})
            assert found.message == f"port {port} is taken"
            assert not found.ok
    assert "no number" in check_ports(tmp_path, {"OSORA_PORT": "eight"}).message


@pytest.mark.parametrize(
    ("device", "torch_says", "code", "ok", "said"),
    [
        ("auto", "", 0, True, "the CPU, with"),
        ("cpu", "1 x H100, 80 GiB each", 0, True, "the CPU, with"),
        ("auto", "1 x H100, 80 GiB each", 0, True, "1 x H100"),
        ("cuda", "", 0, False, "torch finds no GPU here"),
        ("auto", "", 1, False, "torch cannot be imported: No module named torch"),
    ],
)
def test_a_device(
    monkeypatch: pytest.MonkeyPatch, device: str, torch_says: str, code: int, ok: bool, said: str
) -> None:
    def run(*_: Any, **__: Any) -> Any:
        return subprocess.CompletedProcess([], code, torch_says, "Traceback:\nNo module named torch\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    found = check_device({"OSORA_DEVICE": device})
    assert (found.ok, found.message.startswith(said) or said in found.message) == (ok, True)


@pytest.mark.parametrize(("visible", "ok"), [(None, False), ("0", False), ("", True), ("-1", True)])
def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch, visible: str | None, ok: bool) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "", ""))
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/nvidia0")
    found = check_device({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert found.ok == ok, "hidden on purpose, it is no fault"


def test_memory() -> None:
    assert check_memory(0, True).ok
    assert check_memory(10**6, True).ok
    found = check_memory(10**15, True)
    assert "the bases alone take 7450580.6 GiB" in found.message
    assert not found.ok
    assert check_memory(10**15, False).ok  # a GPU's, which is not looked at


def test_what_a_container_has_in_files_that_nobody_uses_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has read much has little left that is not taken by something, and all of it to give."""
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**30 - 4096}\n")
    (tmp_path / "memory.stat").write_text(f"anon 4096\ninactive_file {2**29}\n")
    monkeypatch.setattr(machine, "_CONTROL_GROUP", tmp_path)
    found = check_memory(10**6, True)
    assert found.message.startswith("0.5 GiB free")
    assert found.ok


def test_a_limit_of_each_program_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_AS: 2 * 2**30, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], resource.RLIM_INFINITY))
    assert check_memory(10**6, True).ok
    monkeypatch.setattr("osora.doctor.machine._available_bytes", lambda: 100 * 2**30)
    found = check_memory(6 * 10**8, True)
    assert "100.0 GiB free, of which `ulimit` lets each program have 2.0 GiB" in found.message
    assert not found.ok
    assert "ulimit -v" in str(found.next_action)
