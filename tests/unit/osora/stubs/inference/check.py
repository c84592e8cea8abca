"""Stands in for the real one: every base is there but STUB_NO_BASE's."""

import os
import sys

if base := os.environ.get("STUB_NO_BASE"):
    print("something a library said", f"no base model called {base!r}.", sep="\n", file=sys.stderr)
    sys.exit(os.EX_CONFIG)
