"""`python -m inference.check`: whether the bases in `OSORA_BASES` can be loaded, long before one would be."""

from inference.settings import InferenceSettings
from osora_common import base_lookup
from osora_common.refusal import refusing
from osora_common.unusable_base import UnusableBaseError


def main() -> None:
    """The command. It says nothing if there is nothing against any of them."""
    with refusing(UnusableBaseError):
        for path in InferenceSettings().base_paths.values():
            base_lookup.look_up(path)


if __name__ == "__main__":
    main()
