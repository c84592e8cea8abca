"""Training files on this machine: what a service would say of them, and how to mend them, without a service."""
