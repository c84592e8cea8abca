"""Ports for the servers that tests start in processes of their own."""

import random
import socket

# Below those that Linux and macOS give to whoever connects: such a port could be taken in the seconds until the server
# binds it.
_OURS = range(20_000, 32_000)
_dice = random.SystemRandom()  # the other processes of a run have the same seed


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    while True:
        port = _dice.choice(_OURS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
