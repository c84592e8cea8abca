"""Ports are reserved for servers that are still to come."""

import socket
from contextlib import closing

import pytest

from osora.serve import ports
from osora.serve.ports import Ports, PortTakenError


def test_a_port_that_another_has_reserved_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """To listen on it, if only to see whether that is possible, would be in its server's way."""
    tried: list[int] = []
    is_free = ports._is_free

    def noted(host: str, port: int) -> bool:
        tried.append(port)
        return is_free(host, port)

    with closing(Ports()) as mine, closing(Ports()) as others:
        port = mine.take_near("127.0.0.1", 9200)
        monkeypatch.setattr(ports, "_is_free", noted)
        assert others.take_near("127.0.0.1", port) > port
        with pytest.raises(PortTakenError):
            others.take("127.0.0.1", port)
        assert port not in tried


def test_a_port_that_was_in_use_can_be_had_once_it_is_free() -> None:
    with closing(Ports()) as mine, closing(Ports()) as others, socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))  # so that the system gives it to nobody else meanwhile
        port = holder.getsockname()[1]
        with socket.create_server(("127.0.0.1", port)), pytest.raises(PortTakenError):
            mine.take("127.0.0.1", port)
        assert others.take("127.0.0.1", port) == port
