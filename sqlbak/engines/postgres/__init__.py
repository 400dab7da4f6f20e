"""PostgreSQL over its replication protocol."""
