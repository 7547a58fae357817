# One command for each thing a newcomer wants; all may be run in any order and again.
#   make demo     set up, then the main job: one trainer four times, with and without the daemon
#   make test     set up, then the tests
#   make slow     set up, then the few tests that take a minute each; with SLICE=1/8 an eighth of them, as CI takes another eighth for each commit
#   make newest   the tests that meet torch's internals, on the newest torch: in an environment of its own, of about 6 GB
#                 With TORCH=2.15.0, and PYTHON=python3.12 if you like, both use an environment of its own beside .venv
#   make check    set up, then formatting, lint, types, the arrows between the packages, stubs up to date
#   make .venv    the set-up alone
#   make protos   the wire's stubs again from the schema
#   make matrix   every fault at every step, against real daemons: docs/trust/matrix.md (10 to 20 minutes)
#   make twins    pairs of programs that differ in one thing must not be confused; goes on where it was stopped (hours)
#   make verified  the end-to-end tests with every hit compiled once more: docs/trust/verified.md (long)
#   make traces   the zoo, the end-to-end tests and twins with traces skipped: docs/trust/skipped.md, traces.md (an hour)
#   make zoo      how much of what dynamo emits the daemon can take (minutes)
#   make corpus   models of transformers, diffusers and x-transformers with a daemon: docs/corpus.md; goes on where it was stopped (hours)
#                 With CORPUS=pictures those of timm, k-diffusion and denoising-diffusion-pytorch
#   make fuzz     the readers of everything that comes from outside, and every RPC of a daemon, fed with garbage (minutes)
#   make attack   100,000 graphs and kernels that try to get something else done; results into docs/trust (minutes)
#   make soak     16 clients and a daemon that is killed every minute, for half an hour; results into docs/trust
#   make floods   floods against a daemon, and what other clients notice; results into docs/trust (minutes)
#   make bench    every speed bench in its short form, each goal beside what was measured (a quarter of an hour)
#   make kernels  Triton kernels: cold, warm, and with the daemon (minutes; needs Triton, no GPU)
#   make slurm    the Slurm guide's own files on a real Slurm of two nodes, in a network of its own (minutes; root, Debian's packages)
#   make load     64 connections that look artifacts up as fast as they can; results into docs/trust
#   make fleet-model  what 10,000 trainers on 1,000 nodes ask of one tier: docs/fleet.md (minutes)
#   make fleet    a small fleet with real engines, whole and with faults: docs/trust/fleet.md (45 minutes on two busy cores; root for all of it)
#   make fleet-check  a real run of 8 trainers on 4 daemons, counted, and the model of a fleet beside it (minutes)

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
# Another torch has an environment of its own: `make test TORCH=2.15.0 PYTHON=python3.12`, say.
VENV := .venv$(if $(TORCH),-torch-$(TORCH)-$(notdir $(PYTHON)))
VENV_OF_NEWEST = .venv-torch-$(NEWEST)-$(notdir $(PYTHON))
BIN := $(VENV)/bin

.PHONY: help demo test slow newest newest-venv check protos matrix twins verified traces zoo corpus fuzz attack soak load floods slurm bench kernels fleet fleet-model fleet-check clean

help:
	@sed -n 's/^#   //p' Makefile

# With uv where it is installed, else with venv and pip. The stamp is renewed when the dependencies change.
.venv: $(VENV)/.stamp
$(VENV)/.stamp: pyproject.toml tools/set_up.sh
	PYTHON="$(PYTHON)" TORCH="$(TORCH)" VENV="$(VENV)" bash tools/set_up.sh
	@touch $@

demo: .venv
	@$(BIN)/python -m benches.demo

# Two processes share the files out; PYTEST_ARGS="-n 0" has one. A file is never split: its tests may share a daemon.
IN_TWO := -n 2 --dist loadfile --no-loadscope-reorder

test: .venv
	$(BIN)/python -m pytest -m "not slow" $(IN_TWO) $(PYTEST_ARGS)

slow: .venv
	$(BIN)/python -m pytest -m slow $(IN_TWO) $(if $(SLICE),--slice $(SLICE)) $(PYTEST_ARGS)

# What meets torch's internals: the worker, pairs of programs, and whole trainers. What goes over a wire, and what becomes
# of it there, is every torch's.
NEWEST := 2.15.0
WIRE := $(addprefix tests/e2e/test_e2e_, tier.py tls.py tracing.py trouble.py)
newest-venv:
	@$(MAKE) --no-print-directory TORCH=$(NEWEST) .venv

newest: newest-venv
	$(VENV_OF_NEWEST)/bin/python -m pytest tests/worker tests/twins tests/e2e $(WIRE:%=--ignore=%) -m "not slow" $(IN_TWO) $(PYTEST_ARGS)

check: .venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tools/protos.sh --check
	$(BIN)/python tools/benchmark_tables.py --check

protos: .venv
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tools/protos.sh

matrix: .venv
	@$(BIN)/python -m tests.faults.matrix --forked --write

twins: .venv
	@$(BIN)/python -m tests.twins --resume runs/twins.jsonl --write $(TWINS_ARGS)

# The tests of verification itself plant differences: they are not among those that must find none.
verified: .venv
	@mkdir -p runs && rm -f runs/verified.jsonl
	E2E_VERIFIED=$(CURDIR)/runs/verified.jsonl $(BIN)/python -m pytest tests/e2e -q -n 2 --dist loadfile \
		--ignore tests/e2e/test_e2e_verify.py $(PYTEST_ARGS)
	@$(BIN)/python tools/verified.py runs/verified.jsonl

# The tests of both verifications plant differences.
traces: .venv
	$(BIN)/python -m benches.zoo.traces --out docs/trust/skipped.md
	@mkdir -p runs && rm -f runs/traces-e2e.jsonl
	E2E_TRACES=$(CURDIR)/runs/traces-e2e.jsonl $(BIN)/python -m pytest tests/e2e -q -n 2 --dist loadfile \
		--ignore tests/e2e/test_e2e_verify.py --ignore tests/e2e/test_e2e_traces.py $(PYTEST_ARGS)
	@$(BIN)/python -m tests.twins --traces --briefly --each 1 --resume runs/traces-twins.jsonl $(TWINS_ARGS)
	@$(BIN)/python tools/traces.py runs/traces-e2e.jsonl runs/traces-twins.jsonl

zoo: .venv
	$(BIN)/python -m benches.zoo --out benches/results/zoo

# `make corpus TORCH=2.14.1 CORPUS=pictures` has those that need a torchvision. A dependency of k-diffusion imports what
# setuptools had before 70; pip says then that torch asks for a newer one.
CORPUS := corpus
CORPUS_OF = $(shell $(BIN)/python -c "from importlib.metadata import version; print(version('torch').partition('+')[0])")
corpus: .venv
	@$(BIN)/python -m pip install --quiet -e '.[$(CORPUS)]' $(if $(findstring pictures,$(CORPUS)),&& $(BIN)/python -m pip install --quiet 'setuptools<70')
	@$(BIN)/python -m benches.corpus.traced --json benches/results/corpus/traced-$(CORPUS_OF).json
	@$(BIN)/python -m benches.corpus --json benches/results/corpus/compiled-$(CORPUS_OF).json $(CORPUS_ARGS)
	@$(BIN)/python tools/corpus_page.py

fuzz: .venv
	$(BIN)/python tools/fuzz_wire.py --out docs/trust
	$(BIN)/python tools/fuzz_rpc.py

attack: .venv
	nice $(BIN)/python -m tests.attack --write

soak: .venv
	$(BIN)/python -m benches.soak --out docs/trust

load: .venv
	$(BIN)/python -m benches.load --out docs/trust

floods: .venv
	$(BIN)/python tools/floods.py --out docs/trust

# Slurm is fetched and unpacked, not installed. With SLURM_FOLDER=/ an installed one is taken.
SLURM_FOLDER ?= $(CURDIR)/runs/slurm
slurm: .venv
	@[ "$(SLURM_FOLDER)" = / ] || [ -d "$(SLURM_FOLDER)/usr" ] || bash tools/slurm.sh "$(SLURM_FOLDER)"
	SLURM_FOLDER="$(SLURM_FOLDER)" nice $(BIN)/python -m pytest tests/recipes/test_recipes_slurm.py -n 0 -s $(PYTEST_ARGS)

bench: .venv
	@$(BIN)/python -m benches.speed

kernels: .venv
	@$(BIN)/python -m benches.kernels

# The scenario of Slurm is played where `make slurm` has fetched one, or with SLURM_FOLDER=/ where it is installed.
fleet: .venv
	@SLURM_FOLDER="$(SLURM_FOLDER)" nice $(BIN)/python -m tests.fleet_suite --write $(FLEET_ARGS)

fleet-model: .venv
	$(BIN)/python -m benches.fleet --out benches/results/fleet > /dev/null
	$(BIN)/python tools/fleet_page.py

fleet-check: .venv
	$(BIN)/python -m benches.fleet --check --out benches/results/fleet > /dev/null
	$(BIN)/python tools/fleet_page.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache runs
