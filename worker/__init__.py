"""The worker: claims jobs from the registry, feeds osora_core's training engine, reports back."""

from osora_common.quiet import quieten

quieten()
