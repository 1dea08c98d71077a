"""Run the command line as ``python -m elsa_ext``."""

import sys

from .cli import main

sys.exit(main())
