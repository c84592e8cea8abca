"""Text of others, made fit to be shown."""

import re


def one_line(value: object, most: int = 80) -> str:
    """A value on one line, without what a terminal would obey, cut to `most` characters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in str(value))
    text = re.sub(r"\s+", " ", printable).strip()
    return text if len(text) <= most else text[: most - 1] + "…"
