"""Run the command line as ``python -m elsa_ext.cli``."""

import sys

from . import main

sys.exit(main())
