"""`python -m client.cli`, where the script `osora` is not on the PATH."""

from client.cli import app

app()
