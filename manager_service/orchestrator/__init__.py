"""Parent jobs from their creation to their end: planning, sweeping, due times, watching."""

from manager_service.orchestrator.creation import Creation, Preview
from manager_service.orchestrator.durations import Durations
from manager_service.orchestrator.endings import log_ends
from manager_service.orchestrator.logs import LogReader
from manager_service.orchestrator.sweeps import Sweeps
from manager_service.orchestrator.timers import Timers
from manager_service.orchestrator.watches import Watches

__all__ = ["Creation", "Durations", "LogReader", "Preview", "Sweeps", "Timers", "Watches", "log_ends"]
