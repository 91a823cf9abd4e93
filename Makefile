# The same verbs here and in CI. Every verb installs what is missing first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install demo serve test check fix bench eval

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make install PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --python $(BIN)/python --editable ".[dev]"
	@touch $@

demo: install
	$(BIN)/python examples/demo.py

serve: install
	$(BIN)/tosa-vqa serve

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

fix: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m bench.vision_latency
	$(BIN)/python -m bench.room_frames
	$(BIN)/python -m bench.tables

eval: install
	$(BIN)/python -m evals.rooms.run --questions 1000 --out bench/results/rooms.json
	$(BIN)/python -m bench.tables
