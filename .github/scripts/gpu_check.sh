#!/usr/bin/env bash
# What a machine with a GPU must pass, and what it measures: build, the whole op suite with CUDA required (gradcheck,
# graph capture, tensors beyond 2^31 elements and bit-for-bit determinism are in it), compute-sanitizer, benchmark.
# Needs torch >= 2.10, nvcc, cmake, ninja, pybind11, scikit-build-core, timm, tqdm, numpy, pytest and hypothesis installed,
# no network. Ends within 9 minutes. Writes benchmarks/results/<GPU>-<date>-<what>.json, or into the folder in $OUT.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
out=${OUT:-benchmarks/results}
mkdir -p "$out" build

capability=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
gpu=$("$python" -c 'import re, torch; print(re.sub(r"\W+", "-", torch.cuda.get_device_name()).lower())')

echo "== build for sm_$capability"
"$python" -m pip install --quiet --no-deps --no-build-isolation --target build/gpu --upgrade \
  -C build-dir=build/gpu-build -C cmake.define.ELSA_CUDA=on -C cmake.define.CMAKE_CUDA_ARCHITECTURES="$capability" .
export PYTHONPATH=$PWD/build/gpu
"$python" -m elsa_ext.cli info

echo "== tests"
ELSA_REQUIRE_CUDA=1 timeout 220 "$python" -m pytest tests/ops tests/test_library.py -q -k "cuda or library" \
  -p no:cacheprovider

echo "== compute-sanitizer"
if compute-sanitizer --error-exitcode 1 "$python" -c 'import torch; torch.ones(1).cuda()' > build/probe.txt 2>&1; then
  for tool in memcheck racecheck; do
    timeout 60 compute-sanitizer --tool "$tool" --error-exitcode 1 "$python" .github/scripts/sanitize_gpu.py
  done
else
  echo "LEFT OUT: compute-sanitizer is missing or does not run on this machine"
  tail -n 3 build/probe.txt
fi

echo "== benchmark"
results=$out/$gpu-$(date -u +%Y%m%d)
bench() {  # seconds, name of the result, arguments of elsa-ext bench
  local seconds=$1 json=$results-$2.json
  shift 2
  timeout "$seconds" "$python" -m elsa_ext.cli bench "$@" --device cuda --backprop --json "$json" || {
    [ $? = 124 ] && echo "LEFT OUT: what elsa-ext bench $* had not measured after $seconds s"
  }
}
bench 60 op-bfloat16 op --batch 128 --dtype bfloat16
bench 40 op-float32 op --batch 128 --baselines depthwise
bench 20 module-bfloat16 module --batch 128 --dtype bfloat16 --baselines timm
