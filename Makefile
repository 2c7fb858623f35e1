# Every target sets up what it needs in a virtual environment, which the next run uses again.
#   make demo | test | test-all | stress | test-agreement | test-torch | test-guests | test-brainevent | test-gpu | lint | docs | bench | bench-networks | bench-gpu | lock | clean        make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv$(if $(LOCKED),-locked)
PYTEST_ARGS ?=
GPU_ARGS ?=
BENCH_ARGS ?=
STRESS_ARGS ?=
# Not empty: only what .ci/locked.txt pins, by its hashes, in an environment of its own (extras test, dev, docs, stress).
LOCKED ?=
# The CUDA that the GPU's driver supports: cuda12 or cuda13.
CUDA ?= cuda13
# The newest release of the peer that we measure against needs Python 3.12.
BENCH_PYTHON ?= $(or $(shell .ci/pythons 3.13 3.12 | head -n 1),$(PYTHON))

export PIP_DISABLE_PIP_VERSION_CHECK = 1
BIN = $(abspath $(VENV))/bin
# meson, cython-lint and others look for their helpers on PATH.
WITH_PATH = PATH="$(BIN):$$PATH"
# In a few processes, each with tests that are side by side, which share what is compiled: most of the time goes there.
PYTEST = "$(BIN)/python" -m pytest -n auto --maxprocesses 4 --dist worksteal
PIP_INSTALL = $(WITH_PATH) "$(BIN)/python" -m pip install -qq
PIP = $(PIP_INSTALL) $(if $(LOCKED),--no-index)
# Folders too, because a deleted file changes only its folder.
SOURCES := meson.build meson.options $(shell find src cuda -not -name __pycache__ -not -name '*.pyc')

.PHONY: demo test test-all stress test-agreement test-torch test-guests test-brainevent test-gpu lint docs bench bench-here bench-networks bench-networks-here bench-gpu bench-gpu-here lock clean

demo: $(VENV)/.with-plot
	"$(BIN)/hebbax" simulate song2000 --output demo

test: $(VENV)/.with-test
	.ci/quickly $(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-all: $(VENV)/.with-test
	$(PYTEST) $(PYTEST_ARGS)

# What takes hours, or other compilers: docs/reliability.md has what it found, and is written anew.
stress: $(VENV)/.with-stress
	$(WITH_PATH) "$(BIN)/python" tests/stress/run.py $(STRESS_ARGS)

# Against NEST and Brian2 too.
test-agreement: $(VENV)/.with-agreement
	$(PYTEST) tests/rules/test_agreement.py tests/rules/test_nest.py tests/rules/test_nest_network.py \
		tests/rules/test_brian2.py -rP $(PYTEST_ARGS)

# Arrays of PyTorch in hebbax.inplace and in the JAX functions.
test-torch: $(VENV)/.with-torch
	"$(BIN)/python" -m pytest tests/outside_jax -k torch $(PYTEST_ARGS)

# brainevent with hebbax as its backend, by our tests, which skip where it is missing.
test-guests: $(VENV)/.with-test $(VENV)/.with-guests
	"$(BIN)/python" -c 'import brainpy, brainstate, hebbax.brainevent; hebbax.brainevent.enable()'
	.ci/quickly $(PYTEST) tests/guests -m "not slow" $(PYTEST_ARGS)

# And by brainevent's own tests, where they concern it.
test-brainevent: test-guests
	PYTHONPATH=tests/guests .ci/quickly "$(BIN)/python" -m brainevent_suite -n auto --maxprocesses 4 $(PYTEST_ARGS)

# On a GPU, without hurry (docs/gpu.md has the other way): what can be wrong, and then, by bench-gpu, what it takes.
GPU_CHECK = "$(BIN)/python" benchmarks/gpu_check.py --minutes 60 --patience 10

test-gpu: $(VENV)/.with-test $(VENV)/.with-gpu
	$(GPU_CHECK) --stages machine,smoke,graphs,no-graphs,sanitizer,tests --output build/test-gpu $(GPU_ARGS)

CHECK_YAML = "$(BIN)/check-jsonschema" --builtin-schema

lint: $(VENV)/.with-dev
	"$(BIN)/ruff" check
	"$(BIN)/ruff" format --check
	$(WITH_PATH) cython-lint src
	"$(BIN)/mypy"
	"$(BIN)/validate-pyproject" pyproject.toml
	$(CHECK_YAML) vendor.github-workflows .github/workflows/*.yml
	$(CHECK_YAML) vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(CHECK_YAML) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(CHECK_YAML) vendor.dependabot .github/dependabot.yml
	$(CHECK_YAML) vendor.citation-file-format CITATION.cff

# The site, with what is there of it thrown away, so that every page is executed: build/docs/html/index.html.
docs: $(VENV)/.with-docs
	rm -rf build/docs docs/generated
	$(WITH_PATH) "$(BIN)/python" -m sphinx -q -W --keep-going -d build/docs/doctrees docs build/docs/html

bench:
	@$(MAKE) --no-print-directory bench-here PYTHON="$(BENCH_PYTHON)" VENV="$(VENV)-bench"

bench-here: $(VENV)/.with-bench
	"$(BIN)/python" benchmarks/bench.py

bench-networks:
	@$(MAKE) --no-print-directory bench-networks-here PYTHON="$(BENCH_PYTHON)" VENV="$(VENV)-bench"

bench-networks-here: $(VENV)/.with-bench $(VENV)/.with-simulators
	"$(BIN)/python" benchmarks/bench_networks.py $(BENCH_ARGS)

bench-gpu:
	@$(MAKE) --no-print-directory bench-gpu-here PYTHON="$(BENCH_PYTHON)" VENV="$(VENV)-bench"

bench-gpu-here: $(VENV)/.with-bench $(VENV)/.with-gpu
	$(GPU_CHECK) --stages machine,kernels,steps,peers $(GPU_ARGS)

# For all versions of Python and systems at once, with the newest packages that there are.
LOCK = uv==0.13.9
lock: $(VENV)/.with-dev
	"$(PYTHON)" -m venv build/lock
	build/lock/bin/python -m pip install -qq "$(LOCK)"
	echo "# All that development needs, pinned: make lock writes it, and make test LOCKED=1 installs it and nothing else." > .ci/locked.txt
	"$(PYTHON)" -c 'import tomllib; print("ninja", *tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | \
	  build/lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --extra test --extra dev --extra docs --extra stress pyproject.toml - >> .ci/locked.txt
	"$(BIN)/python" .ci/check_locked.py

clean:
	rm -rf build dist demo docs/generated .venv .venv-* .hypothesis .mypy_cache .pytest_cache .ruff_cache

# Build tools stay in the environment, so that a later build is incremental and starts at once.
$(VENV)/.tools: pyproject.toml
	@echo "setting up $(VENV) with $(PYTHON)"
	@test -x "$(BIN)/python" || "$(PYTHON)" -m venv "$(VENV)"
	@$(if $(LOCKED),$(PIP_INSTALL) --require-hashes -r .ci/locked.txt)
	@$(PIP) ninja $$("$(BIN)/python" -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
	@touch $@

# Not editable: importing an editable install would first look for changes to build.
$(VENV)/.installed: $(VENV)/.tools $(SOURCES)
	@echo "building and installing hebbax in $(VENV)"
	@$(PIP) --no-build-isolation -Cbuild-dir=build/$(notdir $(VENV)) .
	@touch $@

# CuPy and JAX's plugin, unless both are there already (from elsewhere, say: no network is needed then).
$(VENV)/.with-gpu: $(VENV)/.tools | $(VENV)/.installed
	@"$(BIN)/python" -c 'import cupy, jax; jax.devices("cuda")' 2>/dev/null || \
	  { echo "installing CuPy and JAX for $(CUDA) in $(VENV)"; $(PIP) "hebbax[$(CUDA)]" "jax[$(CUDA)]"; }
	@touch $@

# What an extra of the installed package needs.
$(VENV)/.with-%: $(VENV)/.tools | $(VENV)/.installed
	@echo "installing what hebbax[$*] needs in $(VENV)"
	@$(PIP) "hebbax[$*]"
	@touch $@
