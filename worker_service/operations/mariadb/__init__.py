from worker_service.operations.mariadb.engine import MariadbEngine, MysqlEngine

__all__ = ["MariadbEngine", "MysqlEngine"]
