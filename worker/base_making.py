"""`python -m worker.base_making`: `osora_core.base_making`, with bases shared through the object store."""

from osora_core.base_making import main
from registry.context import Registry
from registry.settings import get_settings
from worker.basis_store import StoredBasis

if __name__ == "__main__":
    with Registry.open(get_settings()) as registry:
        main(StoredBasis(registry.store))
