#!/usr/bin/env bash
# The quick op tests with a wheel, in a venv of its own: `test_wheel.sh WHEEL torch==2.10.0 [STATUS]`. STATUS is what
# `elsa-ext info` has to say of the CUDA kernels there.
set -euo pipefail
cd "$(dirname "$0")/../.."
wheel=$1 torch=$2 status=${3:-}
venv=build/wheel-$torch

[ -d "$venv" ] || "${PYTHON:-python3}" -m venv "$venv"
python=$venv/bin/python
[ -x "$python" ] || python=$venv/Scripts/python  # on Windows
pip=("$python" -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install "$torch" numpy pytest pytest-xdist hypothesis
"${pip[@]}" install --no-deps --force-reinstall "$wheel"
info=$("$python" -m elsa_ext info)
echo "$info"
[[ $info == *"$status"* ]] || { echo "test_wheel: elsa-ext info does not say '$status'" >&2; exit 1; }
echo "Op tests with the wheel in $torch"
"$python" -m pytest -n 2 -m "not thorough and not slow" tests/ops tests/test_compat.py tests/test_library.py
