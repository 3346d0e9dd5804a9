"""`python -m metarun` is `metarun`."""

import os
import sys
from contextlib import suppress

# Python puts the working directory first, and a stranger's torch.py or hydra_plugins may lie there.
with suppress(FileNotFoundError):  # it was removed, and main() says so
    if sys.path[0] in ("", os.getcwd()):
        del sys.path[0]

from metarun.cli import main

if __name__ == "__main__":
    sys.exit(main())
