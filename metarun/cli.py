"""The entry point: which verb, help, one line for each error, exit codes. Hydra is imported for a run or a sweep."""

import argparse
import io
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from metarun import __version__
from metarun.commands import eval as evaluate
from metarun.commands import help as help_
from metarun.commands import report, reproduce, resume, table
from metarun.commands.common import set_up_logging
from metarun.engine.ranks import is_rank_zero
from metarun.errors import DivergedError, MetarunError, ProcessEndedError, RunDirError, StoppedError, UsageError
from metarun.run.signals import stop_at_once
from metarun.text import nearest, printable, reason

# A verb is a module with add_arguments(parser) and main(args).
VERBS = {"eval": evaluate, "resume": resume, "reproduce": reproduce, "table": table, "report": report}
PATIENCE = 10  # seconds


def main() -> int:
    """Runs the command line; returns its exit code."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:  # closed, as a daemon may have it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no ± shows ?
    # OpenMP's threads wait for each other by spinning, unless told otherwise before torch starts: two runs on the same
    # cores are then ten times slower than one after the other. A short spin costs a run alone nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own may not be installed here, and matplotlib then does not start
    try:
        with stop_at_once("nothing that was saved is lost"):
            _dispatch(sys.argv[1:])
        sys.stdout.flush()  # or Python would find out, after all is over, that it cannot
        return 0
    except Exception as error:
        return _report(error)


def _dispatch(argv: list[str]) -> None:
    """Calls what the words name: a verb, or a run or a sweep through Hydra."""
    set_up_logging()
    if argv[:1] == ["help"] and argv[1:2]:
        argv = [*argv[1:], "--help"]  # metarun help table
    name = argv[0] if argv else ""
    is_setting = not name or "=" in name or name[0] in "-+~"
    if argv == ["--version"]:
        print(f"metarun {__version__}")
    elif name == "help" or (is_setting and {"--help", "-h"} & set(argv)):
        help_.main()
    elif name in VERBS:
        parser = _Parser(prog=f"metarun {name}", description=VERBS[name].__doc__, allow_abbrev=False)
        VERBS[name].add_arguments(parser)
        # format=csv and out=FILE are options with the spelling of settings
        words = [f"--{word}" if word.startswith(("format=", "out=")) else word for word in argv[1:]]
        VERBS[name].main(parser.parse_intermixed_args(words))
    elif is_setting:
        from metarun.commands import train

        train.main(argv)
    else:
        verbs = ", ".join([*VERBS, "help"])
        if Path(name, ".hydra").is_dir():
            raise UsageError(f"{name!r} (command line): is a run directory; expected a verb before it: {verbs}")
        raise UsageError(f"{name!r} (command line): expected key=value or one of {verbs}{nearest(name, VERBS)}")


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (command line): expected {self.format_usage()[7:]}")


def _report(error: Exception) -> int:
    """Prints the line of an error; returns the exit code."""
    if isinstance(error, (UsageError, RunDirError, DivergedError, StoppedError, ProcessEndedError)):
        with suppress(UsageError):
            if not is_rank_zero():  # rank 0 says the same, and may have a checkpoint to save,
                time.sleep(PATIENCE)  # before torchrun ends all ranks because this one has failed
                return error.code
    if isinstance(error, MetarunError):
        return _print_error(str(error), error.code)
    if isinstance(error, OSError):
        if not error.filename:
            with suppress(OSError, ValueError):  # what is still to be printed, or Python complains while it shuts down
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 1
        remedy = "set hydra.run.dir or hydra.sweep.dir, or make room" if error.filename else "redirect it elsewhere"
        where = f"{error.filename} (file system)" if error.filename else "output (stdout)"
        return _print_error(f"{where}: {reason(error)}: expected a place that can be written; {remedy}", 4)
    if type(error).__module__.partition(".")[0] in ("hydra", "omegaconf"):
        return _print_error(f"{str(error)[:300]} (Hydra)", 2)
    if os.environ.get("METARUN_DEBUG"):
        raise error
    return _print_error(f"{type(error).__name__}: {reason(error)} (metarun itself): METARUN_DEBUG=1 shows where", 1)


def _print_error(message: str, code: int) -> int:
    print(f"metarun: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return code
