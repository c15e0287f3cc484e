# `make submission` and `make test` need Python 3.11 only; they install everything else into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
RECIPE ?= demo
ARCHIVE ?=
READY = .venv/.ready
READY_DEV = .venv/.ready-dev
INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The stages' `python` and `dvc` are those of .venv.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: submission recipe diffusion test test-all lint benchmark clean

submission: $(READY)  ## run every stage that is not up to date; the result is submissions/submission.csv
	dvc repro

recipe: $(READY)  ## set params.yaml to RECIPE (and ARCHIVE, a zip or folder), then run
	python -m pipeline.recipe $(RECIPE) $(if $(ARCHIVE),--archive "$(ARCHIVE)")
	dvc repro

test: $(READY_DEV)
	python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(READY_DEV)  ## with the long sweeps
	python -m pytest -n 2 --dist loadfile

diffusion: $(READY)  ## what the system diffusion needs besides, PyTorch among it
	$(INSTALL) -r requirements-diffusion.txt

lint: $(READY_DEV)
	ruff check .
	ruff format --check .

benchmark: $(READY_DEV)
	python -m benchmarks

clean:  ## remove everything made here but the environment and DVC's cache
	rm -rf .work data/raw data/truth data/index.csv data/split.csv data/augmented data/model data/filled \
	  data/validation.npz data/twins.csv data/blend.json submissions/submission.csv

$(READY): requirements.txt constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo 'Python 3.11 is needed; name it: make PYTHON=/path/to/python3.11'; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(INSTALL) -r requirements.txt
	@touch $@

$(READY_DEV): $(READY) requirements-dev.txt
	$(INSTALL) -r requirements-dev.txt
	@touch $@
