# Everything runs in .venv, which the first target that needs it makes. PYTHON chooses the
# interpreter; left alone, it is the first of Python 3.11 to 3.14 that this machine can start.
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13 3.14,$(shell \
	python$(v) -c 'print("python$(v)")' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REFERENCE := .venv-reference
XLA := .venv-xla
SEED ?= 1
export HYDRA_FULL_ERROR ?= 0

.DEFAULT_GOAL := help
.PHONY: help install train test test-slow lint bench gpu lite lite-gpu lite-clicks lite-edges overfit kill-resume reference fuzz fuzz-data fuzz-settings soak test-tpu smoke docs clean

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

install: $(STAMP)  ## Make .venv with the versions that the tests ran with.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo 'make: no Python 3.11 to 3.14 here: install one, or name it: make PYTHON=/path/to/python3'; exit 1; }
	@echo "Installing into $(VENV): about 7.4 GB with CUDA's libraries, two to ten minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed -c constraints.txt -e '.[dev]'
	@touch $@

train: $(STAMP)  ## Train the default experiment on the generated shapes and print its table.
	$(BIN)/python train.py $(ARGS)

test: $(STAMP)  ## The tests, under ten minutes on two cores.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n 2 --dist worksteal $(ARGS)

test-slow: $(STAMP)  ## The tests that take minutes each, and the notebooks.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadfile $(ARGS)
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=900 notebooks

lint: $(STAMP)  ## Style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## Speed beside TensorFlow and torchvision, one table; ROW=label for one row.
	$(BIN)/python -m benchmarks $(ROW) $(if $(ROW)$(findstring --quick,$(ARGS)),,--write docs/performance.md) $(ARGS)

gpu: $(STAMP)  ## What only a CUDA card shows, in six minutes; rehearse with ARGS="--device cpu --tiny".
	$(BIN)/python -m benchmarks.gpu $(ARGS)

# A run that was stopped goes on where it was: its time counts on.
MINUTES ?= 120
lite: OUT ?= runs/lite
lite: $(STAMP)  ## Train deepmac-lite on a CPU: make lite ROOT=COCO [MINUTES=120 OUT=runs/lite]
	OMP_NUM_THREADS=1 $(BIN)/python train.py experiment=deepmac_lite trainer=cpu trainer.precision=bf16-mixed \
	  data.root=$(abspath $(ROOT)) data.num_workers=1 $(call lite_run) $(ARGS)
lite-gpu: MINUTES = 8
lite-gpu: OUT ?= runs/lite_gpu
# A card outruns its loader: a process a core but one.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 8); echo $$((n > 1 ? n - 1 : 1)))
lite-gpu: $(STAMP)  ## The same on one card in minutes: make lite-gpu ROOT=COCO [MINUTES=8 OUT=runs/lite_gpu]
	$(BIN)/python train.py experiment=deepmac_lite_gpu data.root=$(abspath $(ROOT)) \
	  data.num_workers=$(WORKERS) $(call lite_run) $(ARGS)
lite-clicks: MINUTES = 44
lite-clicks: OUT ?= runs/lite_clicks
lite-clicks: $(STAMP)  ## Train deepmac-lite's click head on a CPU: make lite-clicks ROOT=COCO [MINUTES=44 OUT=runs/lite_clicks]
	OMP_NUM_THREADS=1 $(BIN)/python train.py experiment=deepmac_lite_clicks trainer=cpu trainer.precision=bf16-mixed \
	  data.root=$(abspath $(ROOT)) data.num_workers=1 $(call lite_run) $(ARGS)
lite-edges: MINUTES = 35
lite-edges: OUT ?= runs/lite_edges
lite-edges: $(STAMP)  ## Train deepmac-lite's edge head on a CPU: make lite-edges ROOT=COCO [MINUTES=35 OUT=runs/lite_edges]
	OMP_NUM_THREADS=1 $(BIN)/python train.py experiment=deepmac_lite_edges trainer=cpu trainer.precision=bf16-mixed \
	  data.root=$(abspath $(ROOT)) data.num_workers=1 $(call lite_run) $(ARGS)
lite_run = trainer.max_time=00:$(shell printf %02d:%02d $$(($(MINUTES) / 60)) $$(($(MINUTES) % 60))):00 \
  hydra.run.dir=$(abspath $(OUT)) $(if $(wildcard $(OUT)/checkpoints/last.ckpt),ckpt_path=last)

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

fuzz-settings: $(STAMP)  ## Every setting with values that cannot be meant: make fuzz-settings ARGS='--seed 7 --count 400'
	PYTHONPATH=tests $(BIN)/python -m e2e.settings_fuzz $(ARGS)

fuzz-data: $(STAMP)  ## Five hundred damaged exports of every annotation format for the readers.
	PYTHONPATH=tests $(BIN)/python -m data.annotations.fuzz $(ARGS)

soak: $(STAMP)  ## Kills, full disks, damaged inputs, hostile settings: hours; ARGS=--quick for five minutes.
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m soak $(ARGS)

test-tpu: $(XLA)/.installed  ## Training on XLA, with the CPU in the place of a TPU.
	$(XLA)/bin/python -m pytest tests/tpu $(ARGS)
$(XLA)/.installed: pyproject.toml constraints-xla.txt
	$(PYTHON) -m venv $(XLA)
	$(XLA)/bin/python -m pip install --quiet -c constraints-xla.txt -e '.[xla]' pytest hypothesis matplotlib
	@touch $@

smoke:  ## Another Python of this machine, if it has one: the package alone, and one mask.
	@other="$(firstword $(filter-out $(PYTHON),$(foreach v,3.13 3.12 3.14 3.11,$(shell \
	  python$(v) -c 'print("python$(v)")' 2>/dev/null))))"; \
	if [ -z "$$other" ]; then echo "make smoke: $(PYTHON) is the only Python here"; exit 0; fi; \
	$$other -m venv --clear .venv-smoke && .venv-smoke/bin/python -m pip install --quiet \
	  -c constraints.txt . && .venv-smoke/bin/python tests/smoke.py; \
	code=$$?; rm -rf .venv-smoke; exit $$code

docs: $(STAMP)  ## The documentation as a site in site/.
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## Remove what the targets made.
	rm -rf $(VENV) $(REFERENCE) $(XLA) runs build dist site
