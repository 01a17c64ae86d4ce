from worker_service.operations.postgresql.engine import PostgresqlEngine

__all__ = ["PostgresqlEngine"]
