# The same verbs here and in CI. Every verb installs what is missing first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Processes that share the test files among them.
WORKERS ?= 2
# Where `make serve` listens, on 127.0.0.1.
PORT ?= 8000

.PHONY: install demo serve test test-ray check docs fix fuzz soak bench load peers train eval

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
	$(BIN)/tosa-vqa serve --port $(PORT)

test: install
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test-ray: install
	$(BIN)/uv pip install --python $(BIN)/python --editable ".[dev,ray]"
	$(BIN)/python -m pytest tests/ray -m "ray or not ray"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Into build/site; open build/site/index.html.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fix: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: install
	$(BIN)/python -m tests.fuzz.depth --files 50000 --cases 10000
	$(BIN)/python -m tests.fuzz.http --bodies 20000

soak: install
	$(BIN)/python -m tests.fuzz.soak --minutes 5

bench: install
	$(BIN)/python -m bench.vision_latency
	$(BIN)/python -m bench.room_frames
	$(BIN)/python -m bench.tables

load: install
	$(BIN)/python -m bench.load --serve
	$(BIN)/python -m bench.tables

peers: install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable ".[peers]"
	$(BIN)/python -m bench.peers --rounds 3
	$(BIN)/python -m bench.tables

# About four hours on two cores; every line goes on where it was stopped.
train: install
	$(BIN)/python -m training.stage1_language
	$(BIN)/python -m training.stage2_tower --until 1800
	$(BIN)/python -m training.stage3_joint
	$(BIN)/python -m training.export --run runs/stage3 --out runs/plain
	$(BIN)/python -m training.stage4_furnished
	$(BIN)/python -m training.export

# Every method, ratio and schedule, and the ablations; it goes on where it was stopped.
eval: install
	$(BIN)/python -m evals.rooms.compare --questions 1000 --out bench/results/comparison.json
	$(BIN)/python -m evals.rooms.compare --questions 4000 --methods tome tosa --keep-ratios 0.25 0.1 --without-estimate \
	  --ablated-ratios --rounds 0 --kept runs/comparison_4000.jsonl --out bench/results/comparison_4000.json
	$(BIN)/python -m bench.pareto
	$(BIN)/python -m bench.tables
