"""What tenants use, metered once: generations, training, stored bytes."""

from registry.usage.tables import Kind
from registry.usage.totals import Spent, spent

__all__ = ["Kind", "Spent", "spent"]
