"""How OpenMP's threads wait in our command line; imported before torch, whose OpenMP reads it while it is loaded."""

import os
import sys


def is_command_line() -> bool:
    """Tell whether this process runs ``elsa-ext`` or ``python -m elsa_ext``, and does not import a library."""
    # Python imports this package on the way to its command line, and calls the program "-m" until it is there.
    by_module = sys.argv[:1] == ["-m"] and any(word.endswith(("elsa_ext", "elsa_ext.cli")) for word in sys.orig_argv)
    return by_module or os.path.basename(sys.argv[0] if sys.argv else "") == "elsa-ext"


if is_command_line():
    # Threads that spin at barriers crawl as soon as another process wants a core: see docs/training.md.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
