"""Says what to do where torch is missing or too old; imported before anything that needs it."""

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError("elsa_ext needs torch 2.10 or newer, and there is none: python -m pip install torch") from None

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
    raise ImportError(
        f"elsa_ext needs torch 2.10 or newer, this is {torch.__version__}: python -m pip install 'torch>=2.10'"
    )
