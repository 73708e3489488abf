# `make check` is the test command of the README: it installs what it needs, then checks everything.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: check install lab-packages lint types imports test bench faults docs lab-up lab-down

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

# The lab's tests run beside the others, their output after them; what is timed runs alone, at the end.
test:
	@$(BIN)/pytest tests/slurm > .lab-tests.log 2>&1 & lab=$$!; \
	$(BIN)/pytest --ignore=tests/slurm -m "not bench"; rest=$$?; \
	wait $$lab; lab=$$?; cat .lab-tests.log; test $$rest -eq 0 && test $$lab -eq 0
	$(BIN)/pytest -m bench -s

bench:
	$(BIN)/pytest -m bench -s

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
