# Everything runs in its own virtual environment, made on first use.
PYTHON ?= python3
VENV ?= .venv
# Where the demo writes, and a folder of your own recordings for it (left empty: recordings from Debian packages).
DEMO ?= demo
AUDIO ?=
# Codec to measure: a preset, universal-small or a folder.
CODEC ?= nano

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo demo-train test test-slow test-hostile test-cluster lint docs bench bench-gpu

demo: $(INSTALLED)
	@PATH="$(abspath $(BIN)):$$PATH" bash scripts/demo.sh "$(DEMO)" "$(AUDIO)"

demo-train: $(INSTALLED)
	@PATH="$(abspath $(BIN)):$$PATH" bash scripts/demo.sh "$(DEMO)" "$(AUDIO)" train

test: $(INSTALLED)
	$(BIN)/python -m pytest

test-slow: $(INSTALLED)
	@bash scripts/recordings.sh >/dev/null || echo "Tests on recordings will be skipped."
	$(BIN)/python -m pytest -m slow

test-hostile: $(INSTALLED)
	$(BIN)/python -m pytest tests/hostile -m "not gpu and not cluster"
	$(BIN)/python benchmarks/fuzz_audio.py --mutations 300
	$(BIN)/python benchmarks/fuzz_hostile.py --mutations 1000 --seconds 600
	$(BIN)/python -m benchmarks.kill_jobs --kills 60 --seconds 900

test-cluster: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[metrics]'
	$(BIN)/python -m pytest -m cluster

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(INSTALLED)
	$(BIN)/python benchmarks/encode.py --codec $(CODEC)
	$(BIN)/python benchmarks/decode.py --codec $(CODEC)

bench-gpu: $(INSTALLED)
	$(BIN)/python benchmarks/gpu.py --codec $(if $(filter nano,$(CODEC)),distilcodec-v1,$(CODEC)) --save

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "codectok needs Python 3.11 or newer; $(PYTHON) is older. Name another: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into $(VENV): some minutes and about 5 GB the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev-s3]'
	@if command -v cc >/dev/null; then $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[eval]'; \
		else echo "There is no C compiler: metrics that need one are not installed, and their tests are skipped."; fi
	@touch $@
