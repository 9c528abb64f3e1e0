# `make quickstart` and `make test` do everything, from the virtual environment on.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: quickstart test test-slow lint clean

$(VENV)/base: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/test: $(VENV)/base
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

quickstart: $(VENV)/base
	@echo '== 1. A tiny model to freeze: it answers with the words that its input names.'
	$(BIN)/prompt-tuning train --gin_file=configs/quickstart_model.gin
	@echo '== 2. The frozen model alone, on a task whose inputs name no words.'
	$(BIN)/prompt-tuning eval --gin_file=configs/quickstart.gin --gin.Run.prompt_length=None \
	    --gin.EVAL_OUTPUT_DIR=runs/quickstart/eval_frozen
	@echo '== 3. A prompt of 16 vectors in front of it.'
	$(BIN)/prompt-tuning train --gin_file=configs/quickstart.gin
	@echo '== 4. The frozen model behind the prompt, on the same task, and on a new sentence.'
	$(BIN)/prompt-tuning eval --gin_file=configs/quickstart.gin
	@mkdir -p runs/quickstart/infer
	echo 'the short dance was so splendid .' > runs/quickstart/infer/input.txt
	$(BIN)/prompt-tuning infer --gin_file=configs/quickstart.gin \
	    --input=runs/quickstart/infer/input.txt
	@cat runs/quickstart/infer/predictions.jsonl
	@echo '== Next: `prompt-tuning prompt show runs/quickstart/prompts/best`, and README.md.'

test: $(VENV)/test
	$(BIN)/python -m pytest -n 2 -q -m 'not slow'

test-slow: $(VENV)/test
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) runs build *.egg-info
