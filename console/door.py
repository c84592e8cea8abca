"""Plain pages for whoever is not inside. Nothing of the framework's is in them, which would stay in memory."""

from pathlib import Path

_STATIC = Path(__file__).with_name("static")


def page(name: str, title: str, heading: str, **filled: str) -> str:
    """The page whose content is the static file `name`, with pieces of HTML in the place of their names in braces."""
    content = (_STATIC / name).read_text()
    for word, piece in filled.items():
        content = content.replace(f"{{{{{word}}}}}", piece)
    shell = (_STATIC / "door.html").read_text()
    # The content comes last: what is in it may look like a place to fill.
    return shell.replace("{{title}}", title).replace("{{heading}}", heading).replace("{{content}}", content)
