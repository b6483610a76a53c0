# One command surface for people and CI. `make help` lists it. Needs only make and Python 3.11 or newer.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
# Where it is set, as in some images, each of the hundreds of programs that tests start would compile anew.
unexport PYTHONDONTWRITEBYTECODE

VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# Some tests wait for real servers, and two cores work meanwhile.
WORKERS ?= 4
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup
# What `make test` runs: the layers that need nothing but Python, one exact run on a real AgentOS, and the demo once.
QUICK := tests/unit tests/deploy tests/daemon tests/crash tests/real/test_exact.py::test_newest_agno_with_http_roots \
	tests/real/test_demo.py::test_sigterm_stops_it
DEMO_ARGS ?=

# The first Python that runs and is new enough; `make PYTHON=...` overrides. Empty: see the rule of $(BIN)/python.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Nothing is resolved: a lock names all that is needed, and to some releases of pip `x[extra]` is not pinned by `x==1`.
LOCKED := --require-hashes --no-deps
# $(call install,LOCK...): uv takes seconds where pip takes a minute; pip may know of an index that uv does not.
install = $(PIP_INSTALL) $(LOCKED) -r requirements/uv.txt && \
	{ $(BIN)/uv pip install --quiet --python $(BIN)/python $(LOCKED) $(1:%=-r requirements/%.txt) || \
	  $(PIP_INSTALL) $(LOCKED) $(1:%=-r requirements/%.txt); }
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' $(LOCK_ARGS)

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F '\t' '{ printf "  %-14s %s\n", $$1, $$2 }'

.PHONY: demo
demo: $(VENV)/.runtime ## Run an AgentOS with made-up traffic and the exporter on it: no key, no network
	$(BIN)/agentos-exporter demo $(DEMO_ARGS)

.PHONY: test
test: $(VENV)/.dev ## Run the quick tests: without tools, servers of databases, or waiting
	$(PYTEST) $(QUICK) $(PYTEST_ARGS)

.PHONY: test-real
test-real: $(VENV)/.dev ## Run the tests with real processes and servers, and those of the tools (see `make tools`)
	$(PYTEST) tests/real tests/tools tests/harness $(PYTEST_ARGS)

# In parts, since each takes many minutes; the slowest tests of each are printed.
.PHONY: test-long
test-long: test-faults test-mutants ## Run what takes too long for each change: kills, old releases, faults, mutants, random seeds
	$(PYTEST) tests/long --ignore tests/long/test_faults.py --ignore tests/long/test_rule_mutants.py --durations 20 \
		--timeout 1500 $(PYTEST_ARGS)
	$(PYTEST) tests/unit --hypothesis-profile random $(PYTEST_ARGS)

.PHONY: test-faults
test-faults: $(VENV)/.dev ## Put faults into a copy of the code, each of which `make test` must notice
	$(BIN)/python -m pytest tests/long/test_faults.py --durations 20 --timeout 600 $(PYTEST_ARGS)

.PHONY: test-mutants
test-mutants: $(VENV)/.dev ## Change the alerts in many ways, each of which their tests must notice
	$(PYTEST) tests/long/test_rule_mutants.py --timeout 900 $(PYTEST_ARGS)

.PHONY: tools
tools: ## Build the tools in .ci/tools that tests run: needs Go, takes minutes the first time
	$(or $(PYTHON),python3) tests/harness/gotools.py build

.PHONY: coverage
coverage: $(VENV)/.dev ## Run the quick tests and report branch coverage
	$(PYTEST) $(QUICK) --cov --cov-report=term $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## Check style, types, layers, YAML and generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/yamllint --strict .
	.ci/check-names
	$(BIN)/agentos-exporter metrics --format markdown | diff -u docs/metrics.md - || \
		{ echo 'docs/metrics.md is not what the catalog says: run `make generate`' >&2; exit 1; }
	$(BIN)/python -m deploy.mixin --check

.PHONY: format
format: $(VENV)/.dev ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.dev ## Run the benchmarks
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# $(call golden,TOOL,FILES,TESTS): where `make tools` has built the tool these tests write the files, else they stay.
golden = @tools=$${AGENTOS_TOOLS:-$$($(BIN)/python tests/harness/gotools.py where 2>/dev/null)}; \
	if [ -x "$$tools/$(1)" ]; then $(PYTEST) --quiet --update-golden $(3); \
	else echo 'skipped: $(2) stay as they were, since $(1) is not there (see `make tools`)' >&2; fi

# The order matters: manifests and what alerts say follow from the files of the mixin. Locks are for `make lock`.
.PHONY: generate
generate: $(VENV)/.dev ## Write anew all that is generated: pages, rules, boards, manifests, golden files
	page=$$($(BIN)/agentos-exporter metrics --format markdown) && printf '%s\n' "$$page" > docs/metrics.md
	$(BIN)/python -m deploy.mixin
	$(BIN)/python -m pytest --quiet --update-golden tests/unit/test_catalog.py::test_contract \
		tests/unit/test_render.py::test_golden_text tests/unit/test_render.py::test_golden_openmetrics
	$(call golden,helm,deploy/kubernetes/*.yaml,tests/tools/test_kubernetes.py::test_they_are_what_the_chart_renders)
	$(call golden,promtool,tests/golden/alerts/*.txt,tests/tools/test_rules.py::test_what_an_alert_says)

.PHONY: build
build: $(VENV)/.dev ## Build the wheel and the source archive into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build

# Pins that still fit stay as they are; `make lock LOCK_ARGS=--upgrade` takes the newest of everything.
.PHONY: lock
lock: $(VENV)/.dev ## Regenerate requirements/*.txt from pyproject.toml (needs a package index)
	$(COMPILE) pyproject.toml --all-extras -o requirements/runtime.txt
	$(COMPILE) pyproject.toml --all-extras --group dev --constraint requirements/runtime.txt -o requirements/dev.txt
	$(COMPILE) --group build --constraint requirements/dev.txt -o requirements/build.txt
	$(COMPILE) requirements/sbom.in --constraint requirements/dev.txt -o requirements/sbom.txt
	$(COMPILE) --group lock --constraint requirements/dev.txt -o requirements/uv.txt

.PHONY: clean
clean: ## Remove everything that the targets made
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find exporter tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The environment. Each stamp is newer than the locks it was made from; .dev holds all that .runtime holds, in the same versions.
$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'error: no Python 3.11 or newer among python3.13, python3.12, python3.11, python3;' \
		'install one or run make PYTHON=/path/to/python' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'error: $(PYTHON) is not Python 3.11 or newer' >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'error: $(PYTHON) cannot make environments; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	'$(PYTHON)' -m venv --clear $(VENV)

$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt requirements/uv.txt pyproject.toml | $(BIN)/python
	$(call install,runtime build)
	$(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/build.txt requirements/uv.txt pyproject.toml | $(BIN)/python
	$(call install,dev)
	$(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@ $(VENV)/.runtime
