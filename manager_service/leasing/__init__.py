"""What workers ask for: sessions, polls that hang, heartbeats that hang, reports."""

from manager_service.leasing.desk import LeaseDesk

__all__ = ["LeaseDesk"]
