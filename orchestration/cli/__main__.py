"""``python -m orchestration.cli``: the same as ``nightread``."""

import sys

from orchestration.cli import main

sys.exit(main())
