"""`python -m benchmarks.quality`."""

from benchmarks.quality.program import main

main()
