#!/usr/bin/env bash
# Before a wheel for CUDA is built in cibuildwheel's container, AlmaLinux 8: `install_cuda.sh 12.6` installs what the build
# needs of NVIDIA's toolkit, from NVIDIA's own repository, and a C++ compiler that it takes.
set -euo pipefail
version=${1//./-}

dnf install -y 'dnf-command(config-manager)'
dnf config-manager --add-repo https://developer.download.nvidia.com/compute/cuda/repos/rhel8/x86_64/cuda-rhel8.repo
dnf install -y "cuda-nvcc-$version" "cuda-cudart-devel-$version" "cuda-cuobjdump-$version" gcc-toolset-13-gcc-c++
