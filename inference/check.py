"""`python -m inference.check`: whether the bases in `OSORA_BASES` are there, long before one would be loaded."""

from inference.settings import InferenceSettings
from osora_common.refusal import refusing
from osora_core import base_models
from osora_core.errors import UserError


def main() -> None:
    """The command. It says nothing if all are there or, as a hub's name, may be."""
    with refusing(UserError):
        for path in InferenceSettings().base_paths.values():
            base_models.resolve(path)


if __name__ == "__main__":
    main()
