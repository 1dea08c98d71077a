#!/usr/bin/env bash
# Builds the CPU library for aarch64 on a Debian 12 machine for x86-64, and runs the quick op tests with it in qemu's
# user mode, in a Python of Debian and a torch of PyPI for that architecture. Arguments go to pytest in place of the
# tests that are run by default. Takes 1.5 GB in build/aarch64, which keeps what was downloaded and compiled.
#
#   apt install mmdebstrap qemu-user-static g++-12-aarch64-linux-gnu
set -euo pipefail
cd "$(dirname "$0")/../.."
host=$PWD/${VENV:-.venv}/bin
folder=$PWD/build/aarch64
root=$folder/root
python=$root/usr/bin/python-in-qemu
export PYTHONPATH=$folder/site
# One thread spins at barriers if there are two, and emulated ones do so for long.
export OMP_NUM_THREADS=1

if [ ! -e "$python" ]; then
  mkdir -p "$folder"
  rm -rf "$root"
  mmdebstrap --variant=extract --architectures=arm64 --include=libpython3.11-dev,libstdc++-12-dev,python3.11 \
    bookworm "$root"
  # Python takes the name that it was called by for its own: so what it starts is emulated too.
  printf '#!/bin/sh\nexec qemu-aarch64-static -0 "$0" -L "%s" "%s" "$@"\n' "$root" "$root/usr/bin/python3.11" > "$python"
  chmod +x "$python"
fi

if [ ! -e "$PYTHONPATH" ]; then
  # The newest torch whose wheel for aarch64 on PyPI needs no CUDA. pip itself runs here: it only unpacks wheels.
  "$host/python" -m pip --disable-pip-version-check --quiet install --target "$PYTHONPATH.new" --only-binary=:all: --no-deps \
    --python-version 3.11 --implementation cp --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 \
    torch==2.10.0 filelock fsspec jinja2 markupsafe mpmath networkx sympy typing-extensions numpy \
    pytest iniconfig packaging pluggy pygments hypothesis sortedcontainers
  mv "$PYTHONPATH.new" "$PYTHONPATH"
fi

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
"$host/cmake" -S . -B "$folder/native" -G Ninja -DCMAKE_MAKE_PROGRAM="$host/ninja" -DCMAKE_SYSTEM_NAME=Linux \
  -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++-12 -DCMAKE_SYSROOT="$root" \
  -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$(env -u PYTHONPATH "$host/python" -m pybind11 --cmakedir)" \
  -DSKBUILD_PROJECT_VERSION="$version" -DELSA_CUDA=off -DCMAKE_COMPILE_WARNING_AS_ERROR=ON
"$host/cmake" --build "$folder/native"

package=$folder/package
rm -rf "$package"
mkdir -p "$package/elsa_ext-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: elsa-ext\nVersion: %s\n' "$version" > "$package/elsa_ext-$version.dist-info/METADATA"
cp -r python/elsa_ext "$package"
rm -f "$package"/elsa_ext/*.so
cp "$folder"/native/libelsa_cpu.so "$folder"/native/_C.*.so "$package/elsa_ext"
export PYTHONPATH=$package:$PYTHONPATH
[ $# -gt 0 ] || set -- -m "not thorough and not slow" tests/ops -k "cpu or oracle" --ignore tests/ops/test_compile.py
"$python" -m pytest -p no:cacheprovider "$@"
