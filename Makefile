# `make quickstart` and `make test` do everything, from the virtual environment on.
# `make notebooks` runs the notebooks and stores their outputs.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: quickstart notebooks test test-slow lint clean

$(VENV)/base: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/test: $(VENV)/base
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

quickstart: $(VENV)/base
	$(BIN)/prompt-tuning quickstart

notebooks: $(VENV)/test
	$(BIN)/python tests/test_notebooks.py

test: $(VENV)/test
	$(BIN)/python -m pytest -n 2 -q -m 'not slow'

test-slow: $(VENV)/test
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) runs build *.egg-info
