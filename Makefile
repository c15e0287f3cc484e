# `make submission` and `make test` need git and Python 3.11, 3.12 or 3.13; they install everything else into .venv.
RECIPE ?= demo
ARCHIVE ?=
SOURCE ?=
PYTHON ?=
# The value of a variable as one word for the shell, with its dollar signs and quotes.
quoted = '$(subst ','\'',$(value $(1)))'
INSTALL = @PYTHON=$(call quoted,PYTHON) sh tools/install.sh
# Files in the order of tests/conftest.py, and no plugin that other packages bring.
PYTEST = .venv/bin/python -m pytest --disable-plugin-autoload -p xdist -n 2 --dist loadfile --no-loadscope-reorder
# DVC's stages run the `python` of .venv, whatever Python the user's environment is set up for.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport RECIPE ARCHIVE SOURCE PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONOPTIMIZE PYTHONWARNINGS
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_DRY_RUN PIP_NO_DEPS PIP_REQUIRE_HASHES

ifeq ($(OS),Windows_NT)
  $(error Use Linux, macOS or WSL: TensorFlow and this pipeline do not run on Windows itself)
endif

.NOTPARALLEL:
.PHONY: help submission recipe gpu diffusion test test-all test-slow lint benchmark clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

submission:  ## run every stage that is not up to date; the result is submissions/submission.csv
	$(INSTALL) requirements.txt
	.venv/bin/dvc repro

recipe:  ## set params.yaml to RECIPE, on ARCHIVE=FILE or SOURCE=kaggle, then run every stage
	@case $(call quoted,SOURCE) in '' | kaggle) ;; *) \
	  echo 'SOURCE can only be kaggle; ARCHIVE names a zip or folder' >&2; exit 1 ;; esac
	$(INSTALL) requirements.txt
	.venv/bin/python -m pipeline.recipe $(call quoted,RECIPE) \
	  $(if $(value ARCHIVE),--archive=$(call quoted,ARCHIVE)) $(if $(value SOURCE),--kaggle)
	.venv/bin/dvc repro

gpu:  ## install the libraries for NVIDIA GPUs, then show the GPUs and the precision of a training
	$(INSTALL) requirements.txt requirements-gpu.txt
	.venv/bin/python -m tools.gpus

test:  ## run the tests
	$(INSTALL) requirements.txt requirements-dev.txt
	$(PYTEST) -m "not slow"

test-all:  ## run the tests and the long sweeps
	$(INSTALL) requirements.txt requirements-dev.txt
	$(PYTEST)

test-slow:  ## run the slow tests of the systems and of the trainings at Kaggle, as CI does
	$(INSTALL) requirements.txt requirements-dev.txt requirements-diffusion.txt
	$(PYTEST) -m slow tests/systems tests/ways/test_remote.py

diffusion:  ## install what the system diffusion needs besides, PyTorch among it
	$(INSTALL) requirements.txt requirements-diffusion.txt

lint:  ## check the style
	$(INSTALL) requirements.txt requirements-dev.txt
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

benchmark:  ## measure the speed of each step
	$(INSTALL) requirements.txt requirements-dev.txt
	.venv/bin/python -m benchmarks

clean:  ## remove everything made here but .venv and DVC's cache
	rm -rf .work data/raw data/truth data/index.csv data/split.csv data/augmented data/model data/filled \
	  data/validation.npz data/twins.csv data/twins.npz data/blend.json submissions/submission.csv
