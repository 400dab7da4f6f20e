"""`sqlbak demo`: a real PostgreSQL, protected, broken and brought back while you watch."""
