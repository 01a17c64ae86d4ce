from worker_service.operations.sqlite.engine import SqliteEngine

__all__ = ["SqliteEngine"]
