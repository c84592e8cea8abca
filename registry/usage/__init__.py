"""What tenants use, metered once: generations, training, stored bytes."""

from registry.usage.intake import Generated, forget, take_over
from registry.usage.tables import Kind
from registry.usage.totals import Spent, spent

__all__ = ["Generated", "Kind", "Spent", "forget", "spent", "take_over"]
