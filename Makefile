# `make` alone lists what can be made. CI, hooks and hands call the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PROTOS := $(wildcard protos/overhaul/v1/*.proto)
PROTO_TOOLS := $(VENV)/proto-tools/.installed
DATABASE ?=
export DATABASE
SAMPLE := build/overhaul-sample.db
RELEASED := protos/released/overhaul-0.1.binpb
EXAMPLE := examples/overhaul-logfiles
SOURCES := manager_service worker_service tests benchmarks $(EXAMPLE)
# Tests that only compute, by a clock of their own: they fill every processor, and go unmeasured.
COMPUTING := tests/property tests/simulation
# Tests that kill and stop processes and wait for what becomes of it: two at a time.
BATTERY := tests/battery
# Tests that count what leaks or time what happens: they want the machine for themselves.
ALONE := tests/battery/test_leaks.py tests/acceptance/test_run.py tests/acceptance/test_reload.py

.DEFAULT_GOAL := help
.PHONY: help install servers run test check format lint types imports protos protos-check bench docs docs-check clean lock

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

install: $(INSTALLED) servers ## make .venv with everything for development, from the lock

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Overhaul needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V). Set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments. On Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check
	@touch $@

servers: ## bring the MariaDB server that the tests start, where it is missing (Debian)
	@sh tests/install_servers.sh

run: $(INSTALLED) ## maintain DATABASE=path.db, or a sample that is made first
ifeq ($(DATABASE),)
	@mkdir -p $(dir $(SAMPLE))
	@$(BIN)/python benchmarks/make_sample.py $(SAMPLE)
	@$(BIN)/overhaul run $(SAMPLE)
else
	@$(BIN)/overhaul run -- "$$DATABASE"
endif

test: $(INSTALLED) servers ## run all tests with branch coverage; a skipped test is an error
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(COMPUTING)
	# The others mostly wait, for servers and processes: three at a time. Half a coverage is judged by the report below.
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --cov --cov-report= --cov-fail-under=0 $(addprefix --ignore=,$(COMPUTING) $(BATTERY) $(ALONE))
	# These go unmeasured too: what they are about is time.
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(BATTERY) $(addprefix --ignore=,$(ALONE))
	$(BIN)/python -m pytest $(ALONE)
	@$(BIN)/coverage report

check: lint types imports protos-check docs-check test ## every gate: format, lint, types, imports, protos, docs, tests

format: $(INSTALLED) ## format the code and the protos
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/buf format -w protos

lint: $(INSTALLED) ## ruff's format and lint, without changing anything
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(INSTALLED) ## mypy, strict
	$(BIN)/mypy

imports: $(INSTALLED) ## the layers, by import-linter
	PYTHONPATH=$(EXAMPLE) $(BIN)/lint-imports --no-cache

$(PROTO_TOOLS): protos/requirements.txt $(INSTALLED)
	$(PYTHON) -m venv $(VENV)/proto-tools
	$(VENV)/proto-tools/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r protos/requirements.txt
	@touch $@

protos: $(PROTO_TOOLS) ## make the stubs from the protos
	$(call protoc,protos)

protos-check: $(PROTO_TOOLS) ## lint the protos, compare with the last release, and prove that the stubs are fresh
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf breaking protos --against $(RELEASED)
	@rm -rf build/stubs && mkdir -p build/stubs
	$(call protoc,build/stubs)
	@cd build/stubs && for stub in $$(find overhaul -type f); do \
	  cmp -s "$$stub" "../../protos/$$stub" || { echo "$$stub is not fresh: run make protos" >&2; exit 1; }; done

define protoc
	$(VENV)/proto-tools/bin/python -m grpc_tools.protoc -Iprotos \
	  --plugin=protoc-gen-mypy=$(VENV)/proto-tools/bin/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(VENV)/proto-tools/bin/protoc-gen-mypy_grpc \
	  --python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet,only_async:$(1) $(PROTOS)
endef

bench: $(INSTALLED) ## measure the figures of docs/performance.md
	$(BIN)/python -m benchmarks

docs: $(INSTALLED) ## write the generated references (docs/cli.md)
	$(BIN)/python docs/generate.py

docs-check: $(INSTALLED) ## prove that the generated references are fresh
	@mkdir -p build
	@$(BIN)/python docs/generate.py build/cli.md
	@cmp -s build/cli.md docs/cli.md || { echo "docs/cli.md is not fresh: run make docs" >&2; exit 1; }

lock: $(INSTALLED) ## resolve the locks anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
	  --group dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
	  protos/requirements.in -o protos/requirements.txt
	for peer in pgqueuer procrastinate; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
	    benchmarks/peers/$$peer.in -o benchmarks/peers/$$peer.txt; done

clean: ## remove what was made, .venv included
	rm -rf $(VENV) build dist .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
