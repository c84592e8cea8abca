"""Finding a TCP port that stays ours until the server has bound it."""

import socket
import sys

SEARCHED = 100


class PortTakenError(Exception):
    """The port is in use."""


class Ports:
    """Ports reserved for the servers that we start, for as long as this object is open."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def close(self) -> None:
        for holder in self._held:
            holder.close()

    def take(self, host: str, port: int) -> int:
        """Reserve this very port. Raises `PortTakenError`."""
        if not (_is_free(host, port) and self._hold(port)):
            raise PortTakenError(port)
        return port

    def take_near(self, host: str, port: int) -> int:
        """Reserve the first free port from this one upwards. Raises `PortTakenError` if a hundred are in use."""
        for candidate in range(port, min(port + SEARCHED, 65536)):
            if _is_free(host, candidate) and self._hold(candidate):
                return candidate
        raise PortTakenError(port)

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
        self._held.append(holder)
        return True


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
