"""What the ops ask of the compiled library, where kernel-builder has built it.

A build for CUDA has no kernels for the CPU: the ops take the plain-PyTorch formula there.
"""

CUDA_STATUS = "this build of the kernel is for the CPU"


def cuda_device_problem(_index: int) -> str | None:
    """Return why the CUDA kernels do not run on a device: kernel-builder has built them for all that can."""
    return None
