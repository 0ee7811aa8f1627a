"""An attack on a server's look-ups, to see how little of it reaches the database."""

from windlass.attack.assault import Assault, Plan, Target
from windlass.attack.crafting import craft
from windlass.attack.report import KINDS, Kind, Report

__all__ = ["KINDS", "Assault", "Kind", "Plan", "Report", "Target", "craft"]
