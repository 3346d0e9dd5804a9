"""`python -m metarun` is `metarun`."""

import os
import sys

# Python puts the working directory first, and a stranger's torch.py or hydra_plugins may lie there.
if sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from metarun.cli import main

if __name__ == "__main__":
    sys.exit(main())
