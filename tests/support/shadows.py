"""A folder that a user may stand in: full of files and folders that are called as ours are."""

from pathlib import Path


def cast(folder: Path) -> Path:
    """Fill the folder; whatever of it is imported raises."""
    content = 'raise RuntimeError(f"{__file__} was imported in place of Osora\'s")\n'
    for name in ("api", "client", "inference", "osora", "osora_common"):
        (folder / f"{name}.py").write_text(content)
    for name in ("migrations", "osora_core", "osora_data", "registry", "worker"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(content)
    return folder
