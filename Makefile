# Two environments from locks of exact versions (requirements/README.md); everything else uses them.
# A machine needs Python 3.11, 3.12 or 3.13, make and git.

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test check fix bench soak ui lock clean environments model python chromium
.PHONY: suite-runs suite-prefect suite-library suite-engine

CONTROL := .venv/control
WORKER := .venv/worker
PYTEST := -m pytest
UPGRADE :=

# The first that the locks serve and that can make an environment (Debian's needs python3-venv).
PYTHON := $(shell for name in python3.11 python3.12 python3.13 python3 python \
	$${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.1[123]*/bin/python3; do \
	$$name -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	2>/dev/null && command -v $$name && break; done)
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: environments model ## run a batch on two workers, kill one, watch it finish (5 min)
	@$(CONTROL)/bin/python examples/demo.py

test: environments model chromium ## all tests that need neither a GPU nor AWS (20 min)
	@echo "Four suites at once: whole runs are shown here, the other reports follow."
	@mkdir -p $(REPORTS); $(MAKE) -j4 -k suite-runs suite-prefect suite-library suite-engine; status=$$?; \
	cat $(REPORTS)/{prefect,library,engine}.txt; exit $$status
# Whole runs wait more than they compute, so the four together keep two cores busy; real engines, which
# compute all the time, take what the others leave. Each report ends with the ten slowest tests, the
# counts and the seconds.
REPORTS := .cache/test-reports
PREFECT := tests/flows/prefect tests/end_to_end
suite-runs:
	@$(CONTROL)/bin/python $(PYTEST) --durations=10 tests/flows --ignore=tests/flows/prefect
suite-prefect:
	@(echo "Whole runs under Prefect and under fire:"; \
	$(CONTROL)/bin/python $(PYTEST) --durations=10 $(PREFECT)) >$(REPORTS)/prefect.txt 2>&1
suite-library:
	@(echo "Everything else of the control plane:"; \
	$(CONTROL)/bin/python $(PYTEST) --durations=10 --ignore=tests/flows --ignore=tests/end_to_end) \
	>$(REPORTS)/library.txt 2>&1
suite-engine:
	@(echo "The worker with real vLLM:"; \
	nice -n 10 $(WORKER)/bin/python $(PYTEST) --durations=10 $(WORKER_TESTS) \
	-m "vllm and not soak and not gpu") >$(REPORTS)/engine.txt 2>&1
# Files that import in the worker's environment, which has no Prefect and no boto3.
WORKER_TESTS := tests/workers $(wildcard tests/contracts/test_engine*.py)

check: environments ## lint, format, types, direction of imports (1 min)
	@status=0; export PATH="$(CURDIR)/$(CONTROL)/bin:$$PATH"; \
	ruff check || status=1; \
	ruff format --check || status=1; \
	pyright || status=1; \
	pyright --project workers || status=1; \
	python $(PYTEST) -q tests/test_layers.py || status=1; \
	exit $$status

fix: $(CONTROL)/installed ## repair what ruff can repair
	@$(CONTROL)/bin/ruff check --fix
	@$(CONTROL)/bin/ruff format

bench: environments model ## run every benchmark and write benchmarks/results/ (30 min)
	@$(CONTROL)/bin/python -m benchmarks

# Property tests of the default suite, on examples that nobody has seen.
DRAWN := --hypothesis-profile=drawn
DRAWING = $(shell grep -rl "^from hypothesis" tests --include='test_*.py')
soak: environments model ## kill workers and driver at random, over and over (1 h or more)
	@status=0; \
	$(CONTROL)/bin/python $(PYTEST) $(DRAWN) -m "soak and not vllm" || status=1; \
	$(WORKER)/bin/python $(PYTEST) $(DRAWN) $(WORKER_TESTS) -m "soak and vllm and not gpu" || status=1; \
	$(CONTROL)/bin/python $(PYTEST) $(DRAWN) -q $(DRAWING) || status=1; \
	exit $$status

ui: environments model ## start Prefect's server and worker with the deployments; says where to look
	@$(CONTROL)/bin/python -m deployments

lock: $(CONTROL)/installed ## refresh the locks (UPGRADE=--upgrade takes newer versions)
	@$(COMPILE) --extra control --extra dev --override requirements/exclude.in \
		-o requirements/control.lock
	@$(COMPILE) --extra worker-cpu --extra test --override requirements/exclude.in \
		-o requirements/worker-cpu.lock
	@$(COMPILE) --extra worker-cuda -o requirements/worker-cuda.lock
COMPILE = $(CONTROL)/bin/uv pip compile pyproject.toml --quiet --generate-hashes --no-annotate \
	--custom-compile-command "make lock" --universal --python-version 3.11 $(UPGRADE)

clean: ## remove the environments, the caches and the demo's runs
	@rm -rf .venv .cache .shunt runs .pytest_cache .ruff_cache .hypothesis

environments: $(CONTROL)/installed $(WORKER)/installed

$(CONTROL)/installed: requirements/control.lock pyproject.toml | python
	@echo "Installing the control plane in $(CONTROL) (2 min, 1.9 GB)"
	@requirements/install $(CONTROL) requirements/control.lock

$(WORKER)/installed: requirements/torch-cpu.lock requirements/worker-cpu.lock pyproject.toml | python
	@echo "Installing the worker with vLLM in $(WORKER) (2 min, 2.8 GB)"
	@requirements/install $(WORKER) requirements/torch-cpu.lock requirements/worker-cpu.lock

model: $(CONTROL)/installed
	@$(CONTROL)/bin/python -m shunt.demo_model

python:
	@test -n "$(PYTHON)" || { echo "shunt needs Python 3.11, 3.12 or 3.13 with venv: none is on the PATH" \
		"or in $${PYENV_ROOT:-~/.pyenv}. Install one (Debian and Ubuntu: python3-venv, too), or name" \
		"it: make PYTHON=/path/to/python3"; exit 1; }

chromium:
	@requirements/chromium
