# Everything a newcomer needs: `make demo`, `make test`. Each target makes .venv when it is missing.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test simulate statistics experiments-cost chaos fuzz hostile soak bench bench-parts check format lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -c "import streamer.pipeline.step as s, streamer.factors as f; s.warm_up(f.RecencyFoldIn())"
	@touch $@

demo: $(STAMP)  ## the whole thing on a local Kafka and Redis, in under 90 s (KEEP=1 keeps it running)
	$(BIN)/streamer demo $(if $(KEEP),--keep) $(DEMO_ARGS)

test: $(STAMP)  ## every test, on a real Kafka and a real Redis
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

simulate: $(STAMP)  ## the real loop under seeded faults: SEEDS=200000 for a night, SEED=n for one
	PYTHONPATH=tests $(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),20000))

FUZZ_STAMP := $(VENV)/.fuzz
HOSTILE_RECORDS ?= 1000000
FUZZ_SECONDS ?= 30
FUZZ_TARGETS ?= events records histories features reads notes models

$(FUZZ_STAMP): $(STAMP) requirements/fuzz.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/fuzz.txt
	@touch $@

fuzz: $(FUZZ_STAMP)  ## the coverage-guided fuzzer on every target, FUZZ_SECONDS=30 each
	@for target in $(FUZZ_TARGETS); do \
		echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
		$(BIN)/python tests/fuzz/run.py $$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || exit 1; \
	done

statistics: $(STAMP)  ## 1,000 experiments without a difference, looked at all the time: how many are flagged
	STATISTICS=full $(BIN)/python -m pytest tests/unit/test_experiments_sequential.py tests/unit/test_experiments_report.py \
		-n 0 --timeout 1800 --log-cli-level=info $(PYTEST_ARGS)

experiments-cost: $(STAMP)  ## what outcomes and scores of experiments cost a worker and its Redis, an event
	OPENBLAS_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m integration.experiments_cost $(COST_ARGS)

hostile: $(STAMP)  ## HOSTILE_RECORDS=1000000 mutated records through a real worker, each accounted for
	$(BIN)/python tests/integration/hostile_run.py --records $(HOSTILE_RECORDS)

soak: $(STAMP)  ## two workers at half their capacity for SOAK_SECONDS (600), a rebalance a minute
	PYTHONPATH=tests $(BIN)/python -m soak.run --seconds $(or $(SOAK_SECONDS),600) $(if $(SOAK_RATE),--rate $(SOAK_RATE)) $(SOAK_ARGS)

BENCH_STAMP := $(VENV)/.bench
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed

$(BENCH_STAMP): $(STAMP) requirements/bench.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/bench.txt
	@touch $@

# A peer that cannot be installed must not keep the others from being measured.
$(PEERS_STAMP): requirements/peers.txt
	$(PYTHON) -m venv $(PEERS) && $(PEERS)/bin/python -m pip install --quiet --require-hashes -r requirements/peers.txt \
		&& touch $@ || echo "the peers could not be installed; make bench goes on without them" >&2

bench: $(BENCH_STAMP) $(PEERS_STAMP)  ## streamer, the floor, the naive loop and its peers in turn (BENCH_ARGS=--quick: some three minutes)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-parts: $(BENCH_STAMP)  ## each part of the hot path alone, in µs per event or per user
	$(BIN)/python -m pytest benchmarks/parts -p benchmark -p no:xdist --benchmark-columns=median,iqr,rounds $(PYTEST_ARGS)

chaos: $(STAMP)  ## every failure at full length, and a table of what it changed (CHAOS_JSON=FILE keeps it)
	CHAOS=full STREAMER_REQUIRE=kafka,redis $(BIN)/python -m pytest tests/chaos $(PYTEST_ARGS)

check: $(STAMP)  ## style, types, layers, and the deployment files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/docker/Dockerfile
	$(BIN)/yamllint --strict docker-compose.yml deploy
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

format: $(STAMP)  ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP)  ## pin every dependency again, with hashes
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--strip-extras --allow-unsafe --output-file requirements/runtime.txt pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--strip-extras --allow-unsafe --extra train --extra replay --extra parquet --extra local \
		--output-file requirements/dev.txt requirements/dev.in pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--strip-extras --allow-unsafe --constraint requirements/dev.txt --extra fuzz \
		--output-file requirements/fuzz.txt pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--strip-extras --allow-unsafe --constraint requirements/dev.txt --extra bench \
		--output-file requirements/bench.txt pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--strip-extras --allow-unsafe --output-file requirements/peers.txt requirements/peers.in

clean:  ## forget the environment and every cache
	rm -rf $(VENV) $(PEERS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
