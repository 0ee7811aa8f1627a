"""Jobs for runners that come and ask. A job is a message whose acknowledgement carries the outcome."""

from windlass.dispatch.job import Delivery, Job, Task
from windlass.dispatch.leases import Control
from windlass.dispatch.service import Dispatch

__all__ = ["Control", "Delivery", "Dispatch", "Job", "Task"]
