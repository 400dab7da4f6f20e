#!/bin/sh
# The least-privilege role that sqlbak connects with, and its pg_hba lines.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" <<'SQL'
CREATE ROLE sqlbak LOGIN REPLICATION PASSWORD 'example-only';
GRANT pg_read_all_settings, pg_monitor TO sqlbak;
SQL
cat >>"$PGDATA/pg_hba.conf" <<'HBA'
host  all          sqlbak  samenet  scram-sha-256
host  replication  sqlbak  samenet  scram-sha-256
HBA
