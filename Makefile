# What a person types in a fresh clone. Needs make, Python 3.11 to 3.13, Java 17 and the network
# (once). Another Python: make PYTHON=/path/to/python3.12 …

SHELL := /bin/sh
BIN := .venv/bin
PYTHON ?=
QUICK := not servers and not spark and not end_to_end and not browser and not slow

.DEFAULT_GOAL := help
.PHONY: help setup demo test check test-browser lint format bench up down status lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is needed into .venv and fetch the pinned jars
	@PYTHON="$(PYTHON)" sh deploy/setup.sh

demo: setup ## Run a simulated night from images to topics and print how it went
	@$(BIN)/broker demo

test: check ## Run every check and test, on real servers
	@$(BIN)/python -m pytest -m "not ($(QUICK))"

check: setup lint ## Run format, lint, types, layers and the quick tests
	@$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal -m "$(QUICK)"

test-browser: setup ## Test the pages in Chromium (Debian: apt-get install chromium)
	@$(BIN)/python -m pytest -m browser

lint: setup
	@$(BIN)/ruff format --check --quiet . || { echo "make format mends the format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports > .work/lint-imports.txt || { cat .work/lint-imports.txt; exit 1; }

format: setup ## Put the code into the house's format
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

bench: setup ## Measure speed and memory
	@$(BIN)/broker bench stream

up: setup ## Start Kafka and HBase on this machine
	@$(BIN)/broker up

down: ## Stop them
	@test ! -x $(BIN)/broker || $(BIN)/broker down

status: setup ## Show how they are
	@$(BIN)/broker status

lock: setup ## Pin the newest Python packages that fit together
	@sh deploy/lock.sh

clean: down ## Delete what was installed and built here; data and jars stay
	@rm -rf .venv .work build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
