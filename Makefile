# Everything runs in .venv, which the first target that needs it makes. PYTHON chooses the interpreter.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HYDRA_FULL_ERROR ?= 0

.DEFAULT_GOAL := help
.PHONY: help install train test test-slow lint bench overfit kill-resume clean

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
	$(BIN)/python -m pytest -m 'not slow' $(ARGS)

test-slow: $(STAMP)  ## The tests that take minutes each.
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(STAMP)  ## Style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## Speed figures, each with how it was measured.
	$(BIN)/python -m deepmac.bench $(ARGS)

overfit: $(STAMP)  ## Learn eight real images by heart: make overfit ROOT=COCO
	$(BIN)/python train.py experiment=voc_to_nonvoc_tiny debug=overfit data.root=$(ROOT) $(ARGS)

kill-resume: $(STAMP)  ## Kill and resume trainings at many moments; compare the loss curves.
	$(BIN)/python -m pytest tests/e2e/test_resume.py --kills 10 $(ARGS)

clean:  ## Remove what the targets made.
	rm -rf $(VENV) runs build dist
