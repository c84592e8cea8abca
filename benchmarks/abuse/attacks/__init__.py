"""What is done to a service: one function for each attack, in files by what they strike."""

from benchmarks.abuse.attacks import bodies, connections, generations, jobs
from benchmarks.abuse.attacks.registry import ATTACKS

__all__ = ["ATTACKS", "bodies", "connections", "generations", "jobs"]
