# Every target does its own set-up: a virtual environment in .venv, and for the tests the servers
# that can be had without privileges.
.PHONY: demo test lint unit soak clean

demo: ## a live PostgreSQL, protected, broken and brought back (about a minute)
	@.ci/environment demo
	@.venv/bin/sqlbak demo

test: lint unit ## everything that continuous integration runs

lint:
	@.ci/environment demo,test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

unit:
	@.ci/environment demo,test
	@tests/vault/install_ministack.sh >/dev/null || echo "without ministack: its tests are skipped"
	@tests/monitor/install_prometheus.sh >/dev/null || echo "without Prometheus: its tests are skipped"
	@tests/engines/sqlserver/install_tsql_oracle.sh >/dev/null || echo "without Microsoft's T-SQL parser: its tests are skipped"
	@SQLBAK_TEST_PG_BIN_DIRS="$$(tests/install_postgres_17.sh 2>/dev/null || true)" \
		.venv/bin/pytest -n 3 --dist worksteal

soak: ## long matrices and hundreds of kill -9 rounds; bounded by SOAK_MINUTES (default 60)
	@.ci/environment demo,test
	@tests/vault/install_ministack.sh >/dev/null || true
	@tests/vault/install_ceph.sh 2>/dev/null || true
	@SQLBAK_SOAK_MINUTES="$${SOAK_MINUTES:-60}" \
		SQLBAK_TEST_PG_BIN_DIRS="$$(tests/install_postgres_17.sh 2>/dev/null || true)" \
		.venv/bin/pytest --soak -m soak --timeout 0

clean:
	rm -rf .venv .cache demo dist
