"""The list of base models in `OSORA_BASES`."""


def parse_bases(value: str) -> list[tuple[str, str]]:
    """Name and path (or hub name) of each base in a comma list of `name` or `name=path`, in the order given.

    A name without a path is its own path. Nothing is checked: a name may be empty or come twice.
    """
    pairs = (entry.strip().partition("=") for entry in value.split(",") if entry.strip())
    return [(name.strip(), path.strip() or name.strip()) for name, _, path in pairs]
