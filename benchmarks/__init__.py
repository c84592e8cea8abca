"""Programs that measure: each prints a table as it goes and writes `--json PATH` in one shape (`benchmarks.report`)."""
