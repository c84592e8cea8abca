"""Third-party warnings that nobody here can act on, kept out of our programs' logs."""

import logging

# transformers imports torchao wherever that is installed. It warns of kernels for other machines and of changes in
# torch that are for its own authors.
_LOGGERS = ("torchao", "torch.utils._pytree")


def quieten() -> None:
    """To be called before torch is imported."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
