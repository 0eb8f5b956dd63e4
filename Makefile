# Every target does its own set-up in .venv; nothing needs to be typed first.
SHELL := /bin/bash
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test check bench faults faults-peers schema lock

demo: .venv/.ready
	$(BIN)/pgqueue demo

test: .venv/.ready
	$(BIN)/pytest --numprocesses 2 --durations 15 $(TESTS)

check: .venv/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Writes docs/benchmarks.md; BENCH="drain latency --rounds 5" runs some of it.
bench: .venv/.ready
	$(BIN)/python -m benchmarks $(BENCH)

# Half an hour of faults; FAULTS="--only worker --injections 5" plays some of them.
faults: .venv/.ready
	$(BIN)/python -m tests.faults $(FAULTS)

# The same faults against other queues, side by side; installs them under benchmarks/. Ten minutes.
faults-peers: .venv/.ready
	$(BIN)/python -m tests.faults.beside $(FAULTS)

# Dumps the newest schema into docs/schema.sql; tests/test_docs.py checks that it is up to date.
schema: .venv/.ready
	$(BIN)/python -m tests.schema_dump docs/schema.sql

# After a change of the dependencies in pyproject.toml. Not after .ready, which a stale lock keeps from being made.
lock:
	test -x $(BIN)/python || python3 -m venv .venv
	$(if $(UV),,$(BIN)/python -m pip install --quiet uv)
	$(or $(UV),$(BIN)/uv) lock --default-index https://pypi.org/simple

# uv takes the committed lock. Plain pip takes the newest versions, and reads the group "dev" from pip 25.1 on.
.venv/.ready: pyproject.toml uv.lock
ifneq ($(UV),)
	$(UV) sync --locked --all-extras --group dev
else
	python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[embedded,uvloop]" --group dev
endif
	touch $@
