# Everything a person does with this repository.  `make demo` and `make test` are the two that matter.
# The system's own where it is new enough: Debian builds it with profiles, and a small request takes 5 to 11 % less CPU.
PYTHON ?= $(shell /usr/bin/python3 -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && echo /usr/bin/python3 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
MICRO ?= $(HOME)/.cache/apus/micro

# Compiled modules are kept, whatever the shell says: a cloud starts twice as fast with them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: deps demo test retest lint bench bench-object tempest sim-long kill-long history-long clean

deps: $(VENV)/.installed $(MICRO)/micro.qcow2

$(VENV)/.installed: pyproject.toml
	@tools/debian-packages
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check uv
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -e '.[dev]'
	@$(BIN)/python -m compileall -q src
	@touch $@

$(MICRO)/micro.qcow2: $(shell find src/apus/guest -type f -not -name "*.pyc") | $(VENV)/.installed
	@$(BIN)/apus image build micro --out $(MICRO)

demo: deps
	@PATH="$(CURDIR)/$(BIN):$$PATH" tools/demo

test: deps lint
	@$(BIN)/python -m pytest -q -n 2 --dist loadgroup tests

# What failed once more, one at a time: what fails beside others on a busy machine and passes alone is worth a look,
# what fails twice is broken.
retest:
	@$(BIN)/python -m pytest -q --last-failed --last-failed-no-failures none tests

lint: $(VENV)/.installed
	@$(BIN)/ruff check -q src tests bench
	@$(BIN)/ruff format -q --check src tests bench
	@$(BIN)/mypy
	@PYTHONPATH=src $(BIN)/lint-imports -q 2>/dev/null || PYTHONPATH=src $(BIN)/lint-imports

# PEER=1: install the real OpenStack too and measure both in one run (root; about half an hour).
bench: deps
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench.run $(if $(PEER),--peer)

# Object storage beside its peers: PEERS=swift,ceph,seaweed,nginx installs and measures them (as root), else their known
# figures stand there; QUICK=1 takes a few minutes.
bench-object: deps
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench.objects $(if $(QUICK),--quick) --peers "$(PEERS)"

tempest: deps
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench.acceptance

sim-long: deps
	@PYTHONPATH=src:. $(BIN)/python -m tests.sim.long cluster 0 20000

kill-long: deps
	@$(BIN)/python -m pytest -q -s tests/host/test_kill.py tests/host/test_object_kill.py \
		--kills 200 --real-kills 20 --object-kills 200

# An hour of clients against drives that fail, and thousands of such histories in virtual time.
history-long: deps
	@for kind in drives fragments hosts turns; do PYTHONPATH=src:. $(BIN)/python -m tests.sim.long $$kind 0 2000 || exit; done
	@$(BIN)/python -m pytest -q -s tests/host/test_object_history.py tests/host/test_object_hosts_history.py --history-s 3600

clean:
	rm -rf $(VENV) build dist
