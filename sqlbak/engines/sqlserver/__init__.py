"""SQL Server: backups and restores over T-SQL."""
