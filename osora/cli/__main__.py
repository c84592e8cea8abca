"""`python -m osora.cli`, where the script `osora` is not on the PATH."""

from osora.cli import app

app()
