"""metarun: a command-line experiment runner for meta-learning."""

import sys

__version__ = "0.1.0"

if sys.platform == "win32":  # it has no flock, no SIGHUP, no sysconf
    print("metarun: error: Windows (operating system): expected Linux or macOS; use WSL", file=sys.stderr)
    raise SystemExit(2)
