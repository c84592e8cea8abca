"""Finding a TCP port that stays ours until the server has bound it."""

import socket
import sys

SEARCHED = 100


class PortTakenError(Exception):
    """The port is in use."""


class Ports:
    """Ports reserved for the servers that we start, for as long as this object is open."""

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def close(self) -> None:
        for port in [*self._held]:
            self._let_go(port)

    def take(self, host: str, port: int) -> int:
        """Reserve this very port. Raises `PortTakenError`."""
        if not self._get(host, port):
            raise PortTakenError(port)
        return port

    def take_near(self, host: str, port: int) -> int:
        """Reserve the first free port from this one upwards. Raises `PortTakenError` if a hundred are in use."""
        for candidate in range(port, min(port + SEARCHED, 65536)):
            if self._get(host, candidate):
                return candidate
        raise PortTakenError(port)

    def _get(self, host: str, port: int) -> bool:
        # In this order: looking whether a port is free takes it for a moment, in which the server of whoever has
        # reserved it could not bind it.
        if not self._hold(port):
            return False
        if _is_free(host, port):
            return True
        self._let_go(port)
        return False

    def _hold(self, port: int) -> bool:
        # Two `osora serve` that start together would both find the same port free, seconds before either
        # binds it. An abstract socket's name (Linux) is exclusive in the same namespace as the port is, and
        # leaves no file.
        if sys.platform != "linux":
            return True
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0osora-port-{port}")
        except OSError:
            holder.close()
            return False
        self._held[port] = holder
        return True

    def _let_go(self, port: int) -> None:
        if port in self._held:
            self._held.pop(port).close()


def _is_free(host: str, port: int) -> bool:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
            probe.bind(address)
            probe.listen(1)
    except OSError:
        return False
    return True
