#!/usr/bin/env bash
# Builds the wheel of a release and checks it: `build_wheel.sh cpu`, or `build_wheel.sh 12.6` with the kernels for CUDA 12.6.
# dist/release has it then, and of the first kind dist/pypi a copy without a local version, which PyPI would refuse.
# Runs in the manylinux container of wheels.yml, whose Pythons it takes all, and on any other machine, for its own glibc.
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=$1
mkdir -p dist/release

if [ "$kind" = cpu ]; then
  ELSA_CUDA=off make wheel
  .venv/bin/python .github/scripts/finish_wheel.py --plain --output dist/pypi build/wheel/*.whl
  .venv/bin/python .github/scripts/check_wheel.py --plain dist/pypi/*.whl
  mv dist/*.whl dist/release
  exit
fi

# Code for the GPUs that this toolkit knows and the kernels can use, and PTX for those that come after.
case $kind in
  12.[0-7]) architectures="8.0 8.6 8.9 9.0+PTX" ;;
  *) architectures="8.0 8.6 8.9 9.0 10.0 12.0+PTX" ;;
esac
toolkit=/usr/local/cuda-$kind
[ -x "$toolkit/bin/nvcc" ] || .github/scripts/install_cuda.sh "$kind"
# Older than the container's compiler, GCC 14: CUDA 12.6 does not take that.
older=/opt/rh/gcc-toolset-13/root/usr/bin/g++
[ ! -x "$older" ] || export CUDAHOSTCXX=$older
export PATH=$toolkit/bin:$PATH
TORCH_CUDA_ARCH_LIST=$architectures make cuda-wheel CUDA="$kind"
.venv/bin/python .github/scripts/check_wheel.py --architectures "$architectures" dist/cuda*/*.whl
mv dist/cuda*/*.whl dist/release
