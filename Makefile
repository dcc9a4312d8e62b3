# Two commands do all set-up: `make run` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PARALLEL := -n 2 --dist loadgroup
FAST := $(addprefix tests/,architecture conformance docs domain gateways jobs licensing router services)

.PHONY: setup run test test-fast prove test-programs check bench assets totp asvs audit schemas vectors router-release router-bench

setup: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt pyproject.toml devtools/setup/environment.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh devtools/setup/environment.sh
	@touch $(STAMP)

run: setup
	@exec $(BIN)/python -m devtools.run

test: check test-programs
	$(BIN)/pytest $(PARALLEL)

# Everything that `make test` takes a fixed spread of: each kill point, each byte, long property runs.
prove: check test-programs
	@began=$$(date +%s); PROVE=1 $(BIN)/pytest $(PARALLEL) && \
		echo "make prove: all of it holds; it took $$(( ($$(date +%s) - began) / 60 )) minutes"

# What is quick: no browser, no server, SQLite alone.
test-fast: setup
	$(BIN)/pytest $(PARALLEL) -m "not slow" -k "not postgresql" $(FAST)

test-programs: setup
	@PYTHON="$(abspath $(BIN)/python)" sh devtools/setup/test-programs.sh
	@$(BIN)/python -m devtools.distribution --only-download

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m devtools.templates

bench: setup
	@PYTHON="$(abspath $(BIN)/python)" sh devtools/setup/test-programs.sh
	@$(BIN)/python -m devtools.bench

assets:
	cd devtools/assets && npm ci --ignore-scripts && node build.mjs

totp: setup
	@$(BIN)/python -m devtools.totp --email "$(EMAIL)"

asvs: setup
	@$(BIN)/python -m devtools.asvs

audit: setup
	@$(BIN)/python -m devtools.audit

schemas: setup
	$(BIN)/python -m devtools.schemas

vectors: setup
	$(BIN)/python -m devtools.vectors
	$(BIN)/python -m devtools.sequences

router-release: setup
	@$(BIN)/python -m devtools.distribution $(if $(KEYSET),--keyset "$(KEYSET)")

router-bench: setup
	@$(BIN)/python -m devtools.router_bench
