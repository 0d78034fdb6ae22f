# Everything runs in .venv, which the first target that needs it makes. PYTHON chooses the interpreter.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REFERENCE := .venv-reference
XLA := .venv-xla
SEED ?= 1
export HYDRA_FULL_ERROR ?= 0

.DEFAULT_GOAL := help
.PHONY: help install train test test-slow lint bench overfit kill-resume reference fuzz test-tpu clean

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

install: $(STAMP)  ## Make .venv with the versions that the tests ran with.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed -c constraints.txt -e '.[dev]'
	@touch $@

train: $(STAMP)  ## Train the default experiment on the generated shapes and print its table.
	$(BIN)/python train.py $(ARGS)

test: $(STAMP)  ## The tests, under ten minutes on two cores.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile $(ARGS)

test-slow: $(STAMP)  ## The tests that take minutes each, and the notebooks.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadfile $(ARGS)
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=900 notebooks

lint: $(STAMP)  ## Style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## Speed figures, each with how it was measured.
	$(BIN)/python -m benchmarks $(ARGS)

overfit: $(STAMP)  ## Learn eight real images by heart: make overfit ROOT=COCO
	$(BIN)/python train.py experiment=voc_to_nonvoc_tiny debug=overfit data.root=$(ROOT) $(ARGS)

kill-resume: $(STAMP)  ## Kill and resume trainings at many moments; compare the loss curves.
	$(BIN)/python -m pytest tests/e2e/test_resume.py --kills 10 $(ARGS)

reference: $(STAMP) $(REFERENCE)/.installed  ## The TensorFlow original beside ours: make reference SEED=7
	$(BIN)/python tests/reference/live/run.py --original $(REFERENCE)/bin/python --seed $(SEED) $(ARGS)
$(REFERENCE)/.installed: tests/reference/live/requirements.txt
	$(PYTHON) -m venv --clear $(REFERENCE)
	$(REFERENCE)/bin/python -m pip install --quiet --no-deps -r $<
	@touch $@

fuzz: $(STAMP)  ## Ten thousand damaged checkpoints and as many damaged configs for the readers.
	PYTHONPATH=tests $(BIN)/python -m convert.fuzz $(ARGS)

test-tpu: $(XLA)/.installed  ## Training on XLA, with the CPU in the place of a TPU.
	$(XLA)/bin/python -m pytest tests/tpu $(ARGS)
$(XLA)/.installed: pyproject.toml constraints-xla.txt
	$(PYTHON) -m venv $(XLA)
	$(XLA)/bin/python -m pip install --quiet -c constraints-xla.txt -e '.[xla]' pytest hypothesis matplotlib
	@touch $@

clean:  ## Remove what the targets made.
	rm -rf $(VENV) $(REFERENCE) $(XLA) runs build dist
