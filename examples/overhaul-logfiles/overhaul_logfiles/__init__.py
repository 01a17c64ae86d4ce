"""An engine for Overhaul that keeps folders of rotated log files small and whole."""

from overhaul_logfiles.engine import LogfilesEngine

__all__ = ["LogfilesEngine"]
