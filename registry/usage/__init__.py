"""What tenants use, metered once: generations, training, stored bytes."""

from registry.usage.intake import Generated, forget, take_over
from registry.usage.reports import GROUPS, Group, Question, Row, every, report
from registry.usage.storage import Stored, stored, whose
from registry.usage.tables import Kind
from registry.usage.totals import Spent, spent

__all__ = [
    "GROUPS",
    "Generated",
    "Group",
    "Kind",
    "Question",
    "Row",
    "Spent",
    "Stored",
    "every",
    "forget",
    "report",
    "spent",
    "stored",
    "take_over",
    "whose",
]
