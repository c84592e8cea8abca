"""Training files: one reader for every container and every format. It knows nothing of models, HTTP or SQL."""

from osora_data.problems import Problem, RowError
from osora_data.reader import Checked, check, read, read_values
from osora_data.rows import Format, Row

__all__ = ["Checked", "Format", "Problem", "Row", "RowError", "check", "read", "read_values"]
