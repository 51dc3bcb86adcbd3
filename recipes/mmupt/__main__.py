"""`python -m mmupt` is the command `mmupt`, also for processes that the commands start."""

import sys

# `python -m` puts the working directory first: a folder there called `datasets` would hide the library of that name.
if not getattr(sys.flags, "safe_path", False):
    sys.path.pop(0)

from mmupt.cli import main

sys.exit(main())
