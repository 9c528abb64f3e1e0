# `make quickstart` and `make test` do everything, including the virtual environment.
# `make test PYTHON=python3.13` takes another Python, and .venv-3.13; VENV=... another environment.
# `make notebooks` runs the notebooks and stores their outputs.

# 3.11 first: the scores in the README and the notebooks' outputs were made with it. Each name is
# tried, on PATH and among pyenv's versions, because a pyenv shim may exist and not run.
NAMES := $(or $(PYTHON),python3.11 python3.13 python3.12 python3)
ifndef PYTHON
VENV ?= .venv
endif
# ensurepip is a separate package on Debian, and venv needs it.
IN_RANGE = import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
INTERPRETER := $(shell for name in $(NAMES); do \
	for path in "$$name" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.*/bin/"$$name"; do \
	"$$path" -c '$(IN_RANGE)' 2> /dev/null && echo "$$path" && exit; done; done)
ifeq ($(INTERPRETER),)
$(error Python 3.11, 3.12 or 3.13 is needed and none of these runs: $(NAMES). Name one with PYTHON=PATH)
endif
VERSION := $(shell "$(INTERPRETER)" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV ?= .venv-$(VERSION)
BIN = $(VENV)/bin

# jax 0.12 needs Python 3.12, so 3.11 has the oldest versions and the others have the newest.
CONSTRAINTS = $(if $(filter 3.11,$(VERSION)),constraints.txt,constraints-newest.txt)
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: quickstart notebooks test test-slow lint clean

$(VENV)/base: setup.py $(CONSTRAINTS)
	@test ! -e $(VENV) -o -e $(VENV)/lib/python$(VERSION) || { echo \
	"$(VENV) was made with another Python than $(VERSION); remove it, or name another: VENV=PATH"; exit 1; }
	"$(INTERPRETER)" -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/test: $(VENV)/base
	$(INSTALL) --editable '.[test]'
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
	rm -rf .venv .venv-* $(VENV) runs build *.egg-info
