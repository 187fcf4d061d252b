# make demo     the digits pipeline on this machine: no root, no Docker
# make test     set up and run the tests (as root it also installs what they need with apt-get, and says what)
# make check    format, lint, types, import layers, tests: what CI runs
# make coverage tests with their coverage, which must not fall: takes half as long again
# make simulate SEEDS=1000
#               controller, runners and faults on a fake clock, with as many seeds as you like
# make bench    print the benchmarks' medians, and what each may be at most (or least)
# make format   let ruff format and mend what it can
# make golden   write anew what is made from the code and committed; then read the difference
# make clean    remove what was made here

PYTHON ?= python3
# More than there are processors to be had: much of the time is spent in waiting.
WORKERS ?= 3
SEEDS ?= 300

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# daemons.py is what the others start.
BENCHMARKS := $(filter-out daemons transfer_tools,$(basename $(notdir $(wildcard benchmarks/*.py))))
INSTALLED := pyproject.toml .ci/venv .ci/payloads examples/digits/requirements.txt

# They do the same thousands of times, or in a time: counting their lines as well would take several times as long.
MANY_TIMES := $(addprefix tests/test_,simulation.py webhook_fuzz.py firing_laws.py workflows.py)

.DEFAULT_GOAL := help
.PHONY: help demo test check golden format-check lint types layers tested coverage packages simulate bench format clean

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.demo
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh build/demo

# Under CI the checks come along: one command, one answer.
ifeq ($(CI),true)
test: packages check
else
test: packages $(VENV)/.test
	$(PYTEST)
endif

# --keep-going: who breaks the formatting still wants to know about the tests.
# --jobs=2: the tests wait a good deal; meanwhile the others take their turns, and give way where both would run.
check: $(VENV)/.dev
	@$(MAKE) --no-print-directory --keep-going --jobs=2 tested format-check lint types layers

format-check:
	nice $(BIN)/ruff format --check --quiet .
lint:
	nice $(BIN)/ruff check --quiet --output-format=concise .
types:
	@nice $(BIN)/mypy > $(VENV)/types.log || { cat $(VENV)/types.log; exit 1; }
layers:
	@nice $(BIN)/lint-imports > $(VENV)/layers.log || { cat $(VENV)/layers.log; exit 1; }
tested:
	$(PYTEST)
coverage: $(VENV)/.dev
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist worksteal $(MANY_TIMES:%=--ignore=%)
	$(PYTEST) $(MANY_TIMES)
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage report

packages:
	@.ci/packages

simulate: $(VENV)/.test
	SEEDS=$(SEEDS) $(PYTEST) --timeout=0 -q tests/test_simulation.py

bench: $(VENV)/.test
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m "benchmarks.$$name" || exit 1; done

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet .

golden: $(VENV)/.dev
	REWRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/test_golden.py tests/test_messages.py tests/test_json.py
	$(BIN)/python -m docs.generate

$(VENV)/.demo $(VENV)/.test $(VENV)/.dev: $(VENV)/.%: $(INSTALLED)
	@.ci/venv "$(PYTHON)" $*
	@touch $@

clean:
	rm -rf $(VENV) build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
