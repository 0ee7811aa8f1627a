"""A storm of kills against a real server: many clients, SIGKILL again and again, and a ledger of promises."""

from windlass.torture.ledger import Ledger
from windlass.torture.process import Server, ServerEnded
from windlass.torture.records import Kind, Violation
from windlass.torture.storm import Plan, Progress, Report, Storm

__all__ = ["Kind", "Ledger", "Plan", "Progress", "Report", "Server", "ServerEnded", "Storm", "Violation"]
