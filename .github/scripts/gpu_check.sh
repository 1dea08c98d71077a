#!/usr/bin/env bash
# What a machine with a GPU must pass, and what it measures: build, some tests of every op, the time of each kernel beside
# its floor, the whole op suite with CUDA required (gradcheck, graph capture, tensors beyond 2^31 elements and bit-for-bit
# determinism are in it), benchmark, compute-sanitizer. What says most for its time comes first. Needs torch >= 2.10, nvcc,
# cmake, ninja, pybind11, scikit-build-core, timm, tqdm, numpy, pytest and hypothesis installed, no network; with
# pytest-xdist the tests run in four processes. Ends within 9.5 minutes, if the build ends within 200 s: the benchmarks
# have what the tests leave of 8 minutes. A step that fails does not keep the others from running; the last lines name
# those that failed. Writes benchmarks/results/<GPU>-<date>-<what>, or into the folder in $OUT: tables, results of tests
# and benchmarks, and all that is said here.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
python=${PYTHON:-python3}
out=${OUT:-benchmarks/results}
mkdir -p "$out" build
gpu=$("$python" -c 'import re, torch; print(re.sub(r"\W+", "-", torch.cuda.get_device_name()).lower())')
results=$out/$gpu-$(date -u +%Y%m%d)
exec > >(tee "$results-log.txt") 2>&1

failed=()
step() {  # name, command
  echo "== $1"
  (set -e; "${@:2}")
  local status=$?
  [ $status = 0 ] || failed+=("$1 (exit code $status)")
}
finish() {
  [ ${#failed[@]} = 0 ] && echo "All steps passed" && exit
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
}

build() {
  local capability
  capability=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
  "$python" -m pip install --quiet --no-deps --no-build-isolation --target build/gpu --upgrade \
    --config-settings=build-dir=build/gpu-build --config-settings=cmake.define.ELSA_CUDA=on \
    --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="$capability" .
  "$python" -c 'import elsa_ext; assert "/build/gpu/" in elsa_ext.__file__, f"{elsa_ext.__file__} is imported first"'
  "$python" -m elsa_ext.cli info
}
pytest() {  # seconds at most, name of the results, arguments of pytest
  ELSA_REQUIRE_CUDA=1 timeout "$1" "$python" -m pytest -q -p no:cacheprovider --junitxml="$results-$2.xml" "${@:3}"
}
smoke() { pytest 30 smoke tests/ops/test_oracle.py -k "cuda and k3" --maxfail 30; }
times() { timeout 60 "$python" benchmarks/kernel_times.py "$results-kernels.md"; }
tests() {
  local processes=()
  "$python" -c 'import xdist' 2> build/probe.txt && processes=(-n 4)
  pytest 220 tests tests/ops tests/test_library.py -k "cuda or library" "${processes[@]}"
}
# PyTorch's pool of memory would hide what is beyond a tensor.
sanitize() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout 45 compute-sanitizer --tool "$1" --error-exitcode 1 \
    "$python" .github/scripts/sanitize_gpu.py
}
bench() {  # seconds at most, name of the result, arguments of elsa-ext bench
  local seconds=$1 json=$results-$2.json left=$((480 - SECONDS)) status=0
  shift 2
  [ "$left" -gt 0 ] || { echo "LEFT OUT: elsa-ext bench $*, since 8 minutes are over"; return; }
  [ "$left" -gt "$seconds" ] || seconds=$left
  timeout "$seconds" "$python" -m elsa_ext.cli bench "$@" --batch 128 --device cuda --backprop --json "$json" ||
    status=$?
  [ "$status" != 124 ] || { echo "LEFT OUT: what elsa-ext bench $* had not measured after $seconds s"; status=0; }
  return "$status"
}

export PYTHONPATH=$PWD/build/gpu
step build build
[ ${#failed[@]} = 0 ] || finish  # the others need it
step smoke smoke
step "times of the kernels" times
step tests tests
elsa=(ghost_head hadamard_attention) swin=(swin-t-1 swin-t-2 swin-t-3)
step "bench neighborhood_attention" bench 50 neighborhood-attention-bfloat16 \
  op --op neighborhood_attention --preset "${swin[@]}" --dtype bfloat16 --baselines unfold sdpa flex natten
step "bench op, bfloat16" bench 50 op-bfloat16 op --op "${elsa[@]}" --dtype bfloat16
step "bench module NeighborhoodAttention" bench 20 neighborhood-module-bfloat16 \
  module --module NeighborhoodAttention --preset "${swin[@]}" --dtype bfloat16 --baselines timm sdpa natten
step "bench module ELSA" bench 20 module-bfloat16 module --module ELSA --dtype bfloat16 --baselines timm
step "bench neighborhood_logits" bench 20 neighborhood-logits-bfloat16 \
  op --op neighborhood_logits --preset "${swin[@]}" --dtype bfloat16 --baselines unfold natten
step "bench op, float32" bench 30 op-float32 op --op "${elsa[@]}" --baselines depthwise
if compute-sanitizer --error-exitcode 1 "$python" -c 'import torch; torch.ones(1).cuda()' > build/probe.txt 2>&1; then
  for tool in memcheck racecheck; do step "$tool" sanitize "$tool"; done
else
  echo "LEFT OUT: compute-sanitizer is missing or does not run on this machine"
  tail -n 3 build/probe.txt
fi
finish
