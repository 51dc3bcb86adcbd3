"""Run the command `mmupt` as `python -m mmupt`; commands start their child processes this way, too."""

import sys

# `python -m` puts the working directory first in sys.path, where a folder `datasets` would hide the library `datasets`.
if not getattr(sys.flags, "safe_path", False):
    sys.path.pop(0)

from mmupt.cli import main

sys.exit(main())
