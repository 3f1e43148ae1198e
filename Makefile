# Set-up, build, demo and tests in one place. Everything lives in .venv/ and build/.
#
#   make            packages, virtual environment, build and installation into .venv
#   make deps       only the system packages that the build needs (packages/build.txt); every target that builds begins
#                   with it: what is missing is installed with apt-get, through sudo if need be.  DEPS=check installs
#                   nothing and names what is missing
#   make dev        for the loop of edit and test: an editable installation in .venv-dev, C tests in build/dev
#   make loop-times the seconds from an edit to the result of its test
#   make setup      everything that tests need, without running any
#   make demo       the asynchronous training loop; make demo-sync is the same in lock-step;
#                   BACKEND=redis, mooncake or ray stores the samples there
#   make test       every test; make test-quick is the fast part of it; make lint is a part of it
#   make test-backends  every storage backend against the real thing, with the slow and the large cases
#   make test-compat  only the comparison with PyPI's transferqueue (torch and ray in two more environments)
#   make test-verl  only verl on the package transfer_queue, and the Python tests with the tensordict that verl allows
#   make test-matrix  the Python tests on every Python there is, and all of them with the tensordict that verl allows
#   make sim        the whole system in one thread, with faults drawn from seeds (docs/simulation.md): SEEDS=1000 of them
#                   from FROM=1 on, or new ones for SECONDS=60; STOP=1 ends at the first failure; SIM_ARGS="--seed 7 --trace"
#   make test-full  what make test leaves out: long runs, such as 200 ends of a driver of Ray, backends and matrix
#   make sim-mutants  the simulation looks for planted faults (hours); make sim-unmended does so for former faults
#   make wheel      dist/transferq-*.whl, which needs no system packages; make test-wheel tries it in a bare Debian
#   make format     formats C and Python files
#   make clean      removes build/; make distclean removes .venv/ as well

PYTHON ?= python3
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

VENV := .venv
BIN := $(VENV)/bin
PIP_IN := python -m pip install -qq --disable-pip-version-check -c requirements/constraints.txt
PIP := $(BIN)/$(PIP_IN)
MESON := $(BIN)/meson

# meson finds ninja, and programs started by tests find tq and tqd, in the virtual environment.
export DEPS
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONPATH PYTHONHOME

# What the wheel is made of: no tests, fuzz targets or examples, except the files that tell meson of them.
C_FILES := $(shell find include protocol config src python -name '*.[ch]' ! -name '*_test.c' ! -name 'testkit*' \
	-o -name '*.proto' -o -name meson.build -o -path 'config/*.toml' -o -path 'config/*.py' 2>/dev/null)
PY_FILES := $(shell find python/transferq python/ctq -name '*.py' -o -name '*.pyi' -o -name py.typed -o -name '*.yaml' 2>/dev/null)
COMPAT_FILES := python/transferq/config.yaml $(shell find python/compat -type f 2>/dev/null)
BUILD_FILES := meson.build meson_options.txt pyproject.toml $(C_FILES)

.PHONY: all deps deps-test build demo demo-sync compat test test-quick test-backends test-compat test-verl test-matrix test-full wheel test-wheel verl bench bench-quick lint format clean distclean dev setup loop-times sim sim-mutants sim-unmended

all: build

deps:
	@sh tools/deps.sh packages/build.txt

deps-test: deps
	@sh tools/deps.sh packages/test.txt packages/redis.txt packages/mooncake.txt

# --- the virtual environment: a stamp per set of requirements ---------------------------------

$(VENV)/.stamp-venv: | deps
	@echo "venv: $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "make: $(PYTHON) is older than 3.10; name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) 'pip>=23.1'
	@touch $@

$(VENV)/.stamp-build: requirements/build.txt requirements/run.txt requirements/constraints.txt $(VENV)/.stamp-venv
	@echo "pip: build requirements"
	@$(PIP) -r requirements/build.txt
	@touch $@

$(VENV)/.stamp-demo: requirements/demo.txt $(VENV)/.stamp-build
	@echo "pip: demo requirements (torch is large, this takes a minute)"
	@$(PIP) -r requirements/demo.txt
	@touch $@

# What a storage backend of the demo needs on top.
$(VENV)/.stamp-demo-%: $(VENV)/.stamp-demo
	@if [ -f packages/$*.txt ]; then sh tools/deps.sh packages/$*.txt; fi
	@if [ -f requirements/$*.txt ]; then echo "pip: $* requirements"; $(PIP) -r requirements/$*.txt; fi
	@touch $@

$(VENV)/.stamp-dev: $(addprefix requirements/,dev.txt backends.txt ray.txt mooncake.txt bench.txt nixl.txt) $(VENV)/.stamp-demo
	@echo "pip: development requirements, and the stores that tests run against"
	@$(PIP) -r requirements/dev.txt
	@$(PIP) --no-deps -r requirements/nixl.txt
	@touch $@

# --- the project, installed as its users get it -----------------------------------------------

$(VENV)/.stamp-transferq: $(BUILD_FILES) $(PY_FILES) $(VENV)/.stamp-build
	@echo "build: libtq, tqd, tq and transferq into $(VENV)"
	@$(PIP) --no-build-isolation --no-deps --force-reinstall \
		-Cbuild-dir=build/py -Ccompile-args=-j$(JOBS) .
	@touch $@

build: deps $(VENV)/.stamp-transferq

# --- running it -------------------------------------------------------------------------------

demo: build $(VENV)/.stamp-demo $(BACKEND:%=$(VENV)/.stamp-demo-%)
	@$(BIN)/python examples/async_demo.py $(BACKEND:%=--backend %) $(DEMO_ARGS)

demo-sync: build $(VENV)/.stamp-demo $(BACKEND:%=$(VENV)/.stamp-demo-%)
	@$(BIN)/python examples/sync_demo.py $(BACKEND:%=--backend %) $(DEMO_ARGS)

# --- tests ------------------------------------------------------------------------------------

# What tests need: the installed project, and everything that they run against.
setup: deps-test build $(VENV)/.stamp-dev

# --- the loop: an edit is tested in seconds ---------------------------------------------------

# An editable installation, which an import builds again where a source has changed, in an environment of its own: .venv
# keeps the wheel. Everything else is seen through .venv.
.venv-dev/.stamp: $(VENV)/.stamp-dev
	@echo "venv: .venv-dev"
	@$(PYTHON) -m venv .venv-dev
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		>"$$(.venv-dev/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth"
	@touch $@

# An import builds only what Python needs (the target `package`), and `meson test NAME` only what its test needs.
DEV_OPTIONS := -Cbuild-dir=build/dev -Ccompile-args=package $(addprefix -Csetup-args=, -Dbuildtype=debugoptimized \
	-Ddefault_library=static -Dtests=true -Dshared_tests=true -Dexamples=true)

# The programs lie beside Python, as in an installation.
.venv-dev/.stamp-transferq: meson_options.txt pyproject.toml .venv-dev/.stamp
	@echo "build: transferq into .venv-dev, editable"
	@.venv-dev/bin/$(PIP_IN) --no-build-isolation --no-deps --force-reinstall $(DEV_OPTIONS) -e .
	@for program in tq tqd; do ln -sfn ../../build/dev/$$program .venv-dev/bin/$$program; done
	@touch $@

# Configured anew each time, so that a new Python file is found, too.
dev: deps $(VENV)/.stamp-dev .venv-dev/.stamp-transferq
	@$(MESON) setup --reconfigure build/dev >build/dev-setup.log 2>&1 || { cat build/dev-setup.log; exit 1; }
	@ninja -C build/dev -j$(JOBS) --quiet

loop-times: dev
	@$(BIN)/python tools/loop_times.py

# PyPI's transferqueue with what it needs; nothing of it is seen by any other environment.
.venv-peer/.stamp: requirements/peer.txt requirements/constraints.txt
	@echo "pip: the environment of PyPI's transferqueue (torch is large, this takes minutes)"
	@$(PYTHON) -m venv .venv-peer
	@.venv-peer/bin/$(PIP_IN) -r requirements/peer.txt
	@touch $@

# The compat package; everything else is seen through .venv.
.venv-compat/.stamp: requirements/compat.txt requirements/constraints.txt $(VENV)/.stamp-dev
	@echo "pip: the environment of the compat package"
	@$(PYTHON) -m venv .venv-compat
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		>"$$(.venv-compat/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth"
	@.venv-compat/bin/$(PIP_IN) -r requirements/compat.txt
	@touch $@

.venv-compat/.stamp-compat: $(COMPAT_FILES) .venv-compat/.stamp
	@.venv-compat/bin/$(PIP_IN) --no-build-isolation --no-deps --force-reinstall ./python/compat
	@touch $@

compat: build .venv-peer/.stamp .venv-compat/.stamp-compat

# verl with an older tensordict; the compat package and everything else are seen through the other environments. Its
# wheel holds a top-level package `tests`, which is in the way of ours.
.venv-verl/.stamp: requirements/verl.txt .venv-compat/.stamp
	@echo "pip: the environment of verl"
	@$(PYTHON) -m venv .venv-verl
	@purelib="$$(.venv-verl/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
	for outer in .venv-compat $(VENV); do \
		"$$outer/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; \
	done >"$$purelib/outer.pth"; \
	.venv-verl/bin/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements/verl.txt && \
	rm -rf "$$purelib/tests"
	@touch $@

verl: compat .venv-verl/.stamp

# The build of the C unit tests; also what clang-tidy and the symbol check look at.
build/test/build.ninja: meson_options.txt $(VENV)/.stamp-build
	@mkdir -p build
	@$(MESON) setup $(if $(wildcard build/test/build.ninja),--reconfigure) build/test \
		-Dtests=true -Dexamples=true -Dpython=true -Dwerror=true >build/test-setup.log \
		|| { cat build/test-setup.log; exit 1; }

test: setup compat verl build/test/build.ninja
	@$(BIN)/python tools/run_tests.py

test-quick: setup build/test/build.ninja
	@$(BIN)/python tools/run_tests.py --quick

# Starts the real servers itself; ends with a table, and writes the one of docs/backends.md.
test-backends: setup build/test/build.ninja
	@ninja -C build/test -j$(JOBS) --quiet
	@TQ_TEST_BUILD=$(CURDIR)/build/test $(BIN)/python -m pytest -q tests/conformance --backends-full $(BACKENDS_ARGS)

# --- the wheel --------------------------------------------------------------------------------

$(VENV)/.stamp-wheel: requirements/wheel.txt $(VENV)/.stamp-build
	@$(PIP) -r requirements/wheel.txt
	@touch $@

wheel: deps $(VENV)/.stamp-wheel
	@$(BIN)/python tools/build_wheel.py --jobs $(JOBS)

# Needs root: the bare Debian is a folder that this makes with debootstrap, and removes.
test-wheel: wheel
	@sh tools/deps.sh packages/wheel.txt
	@$(BIN)/python tools/test_wheel.py $(WHEEL_ARGS)

# --- simulation -------------------------------------------------------------------------------

FROM ?= 1
SEEDS ?= $(if $(SECONDS),,100)
sim: deps-test build/test/build.ninja
	@$(BIN)/ninja -C build/test -j$(JOBS) --quiet tests/sim/sim
	@build/test/tests/sim/sim --jobs $(JOBS) --seeds $(FROM)-$(if $(SEEDS),$$(($(FROM) + $(SEEDS) - 1))) \
		$(SECONDS:%=--seconds %) $(if $(STOP),--stop) $(SIM_ARGS)

# What takes many minutes and repeats what `make test` does a few times.
test-full: setup verl build/test/build.ninja
	@ninja -C build/test -j$(JOBS) --quiet
	@status=0; \
	TQ_TEST_BUILD=$(CURDIR)/build/test $(BIN)/python -m pytest -q -rP --full -m full \
		--ignore=tests/conformance tests $(FULL_ARGS) || status=1; \
	$(MAKE) --no-print-directory test-backends || status=1; \
	$(MAKE) --no-print-directory test-matrix || status=1; \
	$(MAKE) --no-print-directory test-wheel || status=1; \
	exit $$status

test-compat: setup compat
	@status=0; \
	$(BIN)/python tests/compat/differential/compare.py || status=1; \
	$(BIN)/python tests/compat/shipped.py || status=1; \
	.venv-compat/bin/python -m pytest -q tests/compat || status=1; \
	exit $$status

test-verl: setup verl build/test/build.ninja
	@$(BIN)/python tools/run_tests.py --only verl

# MATRIX_ARGS="--only 3.12" runs one of them; --list names them.
test-matrix: setup verl build/test/build.ninja
	@ninja -C build/test -j$(JOBS) --quiet
	@$(BIN)/python tools/test_matrix.py $(MATRIX_ARGS)

# The simulation looks for faults that were planted, and for former ones; see tests/sim/mutants/README.md.
sim-mutants: setup
	@$(BIN)/python tools/sim_mutants.py $(MUTANTS_ARGS)

sim-unmended: setup
	@$(BIN)/python tools/sim_mutants.py --unmended $(MUTANTS_ARGS)

# --- measuring --------------------------------------------------------------------------------

bench: setup .venv-peer/.stamp build/test/build.ninja
	@$(BIN)/ninja -C build/test --quiet bench/many_clients
	@$(BIN)/python -m bench $(BENCH_ARGS)

bench-quick: setup .venv-peer/.stamp build/test/build.ninja
	@$(BIN)/ninja -C build/test --quiet bench/many_clients
	@$(BIN)/python -m bench --quick $(BENCH_ARGS)

lint: setup build/test/build.ninja
	@$(BIN)/python tools/lint.py

format: setup
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs -r clang-format -i
	@$(BIN)/ruff check -q --fix-only .
	@$(BIN)/ruff format -q .

clean:
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis $(VENV)/.stamp-transferq .venv-compat/.stamp-compat \
		.venv-dev/.stamp-transferq

distclean: clean
	@rm -rf $(VENV) .venv-dev .venv-peer .venv-compat .venv-verl
