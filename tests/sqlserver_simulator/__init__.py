"""A SQL Server for tests: the TDS wire, the rules of BACKUP and RESTORE, real rows. See README."""

from __future__ import annotations

from .availability import AvailabilityGroup
from .faults import Fault
from .instance import Login, Unknowns
from .simulator import Simulator, SimulatorError

__all__ = ["AvailabilityGroup", "Fault", "Login", "Simulator", "SimulatorError", "Unknowns"]
