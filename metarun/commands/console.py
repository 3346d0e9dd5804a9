"""What metarun says on the terminal while it works: its log, on stderr."""

import logging

from metarun.engine.ranks import is_first
from metarun.text import printable


class _Console(logging.StreamHandler):
    """Writes to stderr; a path or a value of a stranger cannot steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_up_logging() -> None:
    """Sends metarun's log to stderr, without errors, for cli.main() prints those once; ranks above 0 only warn."""
    log = logging.getLogger("metarun")
    console = _Console()
    console.addFilter(lambda line: line.levelno < logging.ERROR)
    log.handlers = [console, *(handler for handler in log.handlers if not isinstance(handler, _Console))]
    log.propagate = False
    log.setLevel(logging.INFO if is_first() else logging.WARNING)
