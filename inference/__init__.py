"""The inference server: HTTP around osora_core's engine. It knows adapters by reference and no database."""

from osora_common.quiet import quieten

quieten()
