# `make check` is the test command of the README: it installs what it needs, then checks everything.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: check install lab-packages lint types imports test bench recipes faults docs lab-up lab-down

check: install lab-packages lint types imports test

install: $(BIN)/.installed

$(BIN)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

lab-packages:
	cluster/dev/install-packages

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports --no-cache

# In two halves side by side: runs as a person makes them, on the lab and here, their output at the end; and all else.
# What is timed runs alone, afterwards; contests with what others do are for `make bench`, on a quiet machine.
WHOLE_RUNS = tests/slurm tests/cli

test:
	@$(BIN)/pytest -o cache_dir=.pytest_cache/whole-runs $(WHOLE_RUNS) > .whole-runs.log 2>&1 & whole=$$!; \
	$(BIN)/pytest $(WHOLE_RUNS:%=--ignore=%) -m "not bench and not real"; rest=$$?; \
	wait $$whole; whole=$$?; cat .whole-runs.log; test $$rest -eq 0 && test $$whole -eq 0
	$(BIN)/pytest -m "bench and not contest" -s

bench:
	$(BIN)/pytest -m bench -s

# The recipes on their real data, from where pip looks: a quarter of an hour on two cores.
recipes:
	$(BIN)/pytest -m real -s tests/recipes

# What a run survives on a real Slurm, with the seconds that each recovery took.
faults:
	$(BIN)/pytest tests/slurm/test_faults.py tests/slurm/test_own_faults.py tests/slurm/test_outages.py tests/slurm/test_slow_node.py tests/bench/test_recovery_cost.py -s

docs:
	for page in recipe cli readme; do $(BIN)/python docs/generate_$$page.py > docs/.$$page.new || exit 1; done
	mv docs/.recipe.new docs/recipe.md
	mv docs/.cli.new docs/cli.md
	mv docs/.readme.new README.md
	$(BIN)/orchestrate schema > schemas/.recipe.new
	mv schemas/.recipe.new schemas/recipe.schema.json

lab-up lab-down:
	cluster/dev/slurm $(@:lab-%=%)
