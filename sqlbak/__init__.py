"""Backup and point-in-time restore for PostgreSQL and SQL Server."""

__version__ = "0.1.0"
