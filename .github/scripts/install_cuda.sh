#!/usr/bin/env bash
# Installs what the build needs of NVIDIA's CUDA toolkit, as `install_cuda.sh 12.6`, from NVIDIA's own repository, and a
# C++ compiler that it takes, into a container of AlmaLinux 8, which manylinux_2_28 is.
set -euo pipefail
version=${1//./-}

dnf install -y 'dnf-command(config-manager)'
dnf config-manager --add-repo https://developer.download.nvidia.com/compute/cuda/repos/rhel8/x86_64/cuda-rhel8.repo
dnf install -y "cuda-nvcc-$version" "cuda-cudart-devel-$version" "cuda-cuobjdump-$version" gcc-toolset-13-gcc-c++
