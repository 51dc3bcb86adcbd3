# The commands of this repository, one target each; `make` without a target lists them.
# ARGS is passed on unchanged: `make train ARGS="trainer.total_training_steps=3 trainer.logger=[console]"`. In it, quote
# values with spaces, quotes, brackets or = twice, for Hydra and for the shell:
# `make train ARGS="\"data.train_files='my data/a=b [1].parquet'\""`. MODEL, SOURCE, DATA and the folders take any path.

RECIPE ?= mmupt_tiny
ROUNDS ?= 3
RECIPES ?= mmupt_tiny
# The methods in docs/results.md; with RECIPES, each recipe's own method.
METHODS ?= $(if $(filter file,$(origin RECIPES)),mmupt supervised rejection_sft lmsi srlm genixer stic soft soft_min \
	entropy random careful)
# The number of seeds, where 3 means 1, 2 and 3, or a list of seeds such as "4 5".
SEEDS ?= 3
TABLE ?= runs/table
REPORT ?= runs/leakage
tiny := recipes/mmupt/tiny/model
MODEL ?= $(tiny)
# The tiny model follows no instructions, so it needs its own settings.
preset = $(if $(filter $(tiny),$(MODEL)),preset=tiny)
BENCHMARKS ?= figures
OUT ?= runs/compare
DATA ?= datasets/figures/train.parquet
# Test processes. A run of the real trainer keeps little more than one core busy and takes up to 6 GiB.
PROCESSES ?= 2
ARGS ?=
python := .venv/bin/python
mmupt = $(python) -m mmupt

# A Hydra override that sets a key, $(1), to a text, $(2), quoted for the shell.
quote := '
text_override = '$(1)="$(subst $(quote),'\'',$(subst ",\",$(2)))"'

# A path, quoted for the shell if it has spaces.
path = $(if $(word 2,$(1)),"$(1)",$(1))

.DEFAULT_GOAL := help
.PHONY: help setup train self-improve data eval score synthesize table recipes tiny-model check-leakage compare test \
	test-all test-faults lint docs lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## Install into .venv if anything has changed (DEVICE=cpu|cuda, PYTHON=python3.12, FLASH_ATTN=build)
	@scripts/setup.sh

train: setup ## Train a recipe (RECIPE=mmupt_tiny ARGS="method=lmsi model=... key=value ...")
	$(mmupt) train $(RECIPE) $(ARGS)

self-improve: setup ## Train in rounds on questions that the model writes itself (RECIPE=mmupt_tiny_self_improve ROUNDS=3)
	$(mmupt) self-improve $(RECIPE) --rounds $(ROUNDS) $(ARGS)

data: setup ## Prepare a data set (DATASET=geometry3k, SOURCE=a local copy; without DATASET, list them)
	$(mmupt) data $(DATASET) $(if $(SOURCE),--source $(call path,$(SOURCE))) $(ARGS)

eval: setup ## Evaluate a model on benchmarks (MODEL=folder-or-hub-name BENCHMARKS=mathvista,wemath)
	$(mmupt) eval $(call text_override,model,$(MODEL)) 'benchmarks=[$(BENCHMARKS)]' $(preset) $(ARGS)

score: setup ## Rescore saved responses (RESPONSES="runs/eval/NAME/mathvista.jsonl ...")
	$(mmupt) score $(RESPONSES) $(ARGS)

synthesize: setup ## Let a model write questions about images and filter them (MODEL=folder-or-hub-name DATA=file.parquet)
	$(mmupt) synthesize $(call text_override,model,$(MODEL)) $(call text_override,data,$(DATA)) $(preset) $(ARGS)

comma := ,
empty :=
files = [$(subst $(empty) $(empty),$(comma),$(strip $(1)))]
# Only a MODEL that the user gives replaces the model of the recipes; its default is for other targets.
table_model = $(if $(filter-out file,$(origin MODEL)),$(call text_override,actor_rollout_ref.model.path,$(MODEL)))
table_train = $(if $(TRAIN),'data.train_files=$(call files,$(TRAIN))')
table_eval = $(if $(EVAL),'mmupt.evaluation_files=$(call files,$(EVAL))')

seeds = $(if $(word 2,$(SEEDS)),$(SEEDS),$(shell seq $(SEEDS)))

table: setup ## Train several methods and compare them (METHODS="mmupt lmsi" RECIPES="a b" MODEL= TRAIN= EVAL= SEEDS=3 TABLE=runs/table)
	$(mmupt) table --recipes $(RECIPES) $(if $(METHODS),--methods $(METHODS) )--seeds $(seeds) --folder $(call path,$(TABLE)) $(table_model) \
		$(table_train) $(table_eval) $(ARGS)

recipes: setup ## List the recipes and the options of method=, dataset=, model=, hardware=
	@$(mmupt) recipes

tiny-model: setup ## Rebuild the tiny model that the CPU recipes start from
	$(mmupt) tiny-model build $(ARGS)

check-leakage: setup ## Find training rows in evaluation files (TRAIN="a.parquet ..." EVAL="b.parquet ..." REPORT=runs/leakage)
	$(mmupt) check-leakage --train $(TRAIN) --eval $(EVAL) --report $(call path,$(REPORT)) $(ARGS)

compare: setup ## Compare two models on the same questions (A=runs/eval/base B=runs/eval/trained OUT=runs/compare)
	$(mmupt) compare $(call path,$(A)) $(call path,$(B)) --output $(call path,$(OUT)) $(ARGS)

# One process runs all tests of a file, because they share fixtures.
pytest = $(python) -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

test: setup ## Run the tests, with one run of the real trainer (ARGS=tests/verl_ext for a part, PROCESSES=2)
	$(pytest) $(ARGS)

test-all: setup ## Run all other tests: runs of the real trainer, and the smallest run of every benchmark (PROCESSES=2)
	$(pytest) -m "(full_stack or benchmark) and not faults" $(ARGS)

test-faults: setup ## Kill and break the real trainer on purpose (an hour)
	$(python) -m pytest -m faults $(ARGS) tests/faults

lint: setup ## Check style and types
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy

docs: setup ## Build the documentation as a site, build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build

COMPILE = $(python) -m uv pip compile --quiet --universal --python-version 3.10 --no-annotate \
	--no-emit-index-url --custom-compile-command "make lock" $(ARGS)

lock: setup ## Recompile the locked requirements from their .in files (ARGS=--upgrade for newer versions)
	$(COMPILE) pyproject.toml --extra heif --extra plot --extra math_verify --extra vlmevalkit requirements.in -o requirements.txt
	$(COMPILE) pyproject.toml --extra heif --extra plot --extra math_verify --extra vlmevalkit requirements-cpu.in --override requirements-cpu.in -o requirements-cpu.txt
	$(COMPILE) requirements-baselines.in --no-deps -o requirements-baselines.txt
	$(COMPILE) requirements-dev.in -o requirements-dev.txt

clean: ## Remove .venv and the caches, nothing else
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
