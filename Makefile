# First the Python that the pins were made with; another one: make PYTHON=/path/to/python
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3
PYTHON ?= $(firstword $(foreach name,$(CANDIDATES),$(shell $(name) -c 'import sys; print(sys.executable)' 2>/dev/null)) python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_FOR_TESTS := $(VENV)/.installed-for-tests
INSTALLED_WITH_OPENAI := $(VENV)/.installed-with-openai
INSTALLED_WITH_LOCKS := $(VENV)/.installed-with-locks
PACKAGES := osora_common osora_data osora_core registry api inference worker osora console

.DEFAULT_GOAL := help
.PHONY: help install demo demo-openai serve test faults fuzz lint check format docs screenshots browser lock vulnerabilities clean

help: ## Print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(INSTALLED_FOR_TESTS) ## Create .venv and install everything into it (again only if the dependencies changed)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Osora needs Python 3.11 or newer, and '$(PYTHON)' is not that. Try: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV) (the first time takes a few minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[server]'
	@touch $@

# Serving and the demo need none of this.
$(INSTALLED_FOR_TESTS): $(INSTALLED)
	@echo "Installing what the tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@$(BIN)/python -m tests.support.browser
	@touch $@

# OpenAI's client, which the service itself does not need.
$(INSTALLED_WITH_OPENAI): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[server,openai]'
	@touch $@

$(INSTALLED_WITH_LOCKS): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip-audit uv
	@touch $@

demo: $(INSTALLED) ## Start the service, fine-tune on real input, show what changed, stop; BASE=smollm2-135m on a real base
	@$(BIN)/python examples/demo.py $(BASE)

demo-openai: $(INSTALLED_WITH_OPENAI) ## The same job by a program that uses nothing but OpenAI's client
	@$(BIN)/python examples/demo_openai.py

serve: $(INSTALLED) ## Run the service here until Ctrl-C
	@$(BIN)/osora serve

test: lint ## Linters, types and tests: everything that must pass but the fault suite
	@$(BIN)/python -m pytest -n 2 --dist loadfile

faults: $(INSTALLED_FOR_TESTS) ## Kill, stop and starve workers, brokers, databases and disks, and see that no job is lost
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/faults

fuzz: $(INSTALLED_FOR_TESTS) ## Ask the API whatever its document allows, and what it does not
	@$(BIN)/python -m tests.fuzz

lint: $(INSTALLED_FOR_TESTS)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict $(PACKAGES)

check: ## What CI runs
	@.ci/run

format: $(INSTALLED_FOR_TESTS) ## Rewrite the code as the linters want it
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: $(INSTALLED) ## Write docs/settings.md anew from the settings classes
	@$(BIN)/python -m docs.settings_page

browser: $(INSTALLED_FOR_TESTS) ## Have apt bring Chromium for the browser tests, if there is none
	@$(BIN)/python -m tests.support.browser

screenshots: $(INSTALLED_FOR_TESTS) ## Take the pictures in docs/screenshots anew
	@$(BIN)/python -m docs.screenshots_made

lock: $(INSTALLED_WITH_LOCKS) ## Write docker/*.lock anew from pyproject.toml and constraints.txt
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python docker/lock.py

vulnerabilities: $(INSTALLED_WITH_LOCKS) ## Look up what is known of the image's packages (needs the network)
	@$(BIN)/pip-audit --disable-pip --require-hashes -r docker/requirements.lock -r docker/torch.lock -r docker/build.lock

clean: ## Remove what was built and what the demo left; keeps .venv
	@rm -rf .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
