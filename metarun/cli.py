"""The entry point: which verb, help, one line for each error, exit codes.

Imports no torch, and Hydra only for a run or a sweep.
"""

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
from metarun.commands.console import set_up_logging
from metarun.engine.ranks import is_rank_zero
from metarun.errors import DivergedError, MetarunError, ProcessEndedError, RunDirError, StoppedError, UsageError
from metarun.run.signals import stop_at_once
from metarun.text import nearest, printable, reason

# A verb is a module with add_arguments(parser), and main(args), which returns the exit code.
VERBS = {
    "eval": evaluate,
    "resume": resume,
    "reproduce": reproduce,
    "table": table,
    "report": report,
    "help": help_,
}
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
            code = _dispatch(sys.argv[1:])
        sys.stdout.flush()  # or Python would find out, after all is over, that it cannot
        return code
    except Exception as error:
        return _report(error)
    except KeyboardInterrupt:
        return _print_error("SIGINT: stopped", 130)


def _dispatch(argv: list[str]) -> int:
    """Calls what the words name: a verb, or a run or a sweep through Hydra; returns the exit code."""
    set_up_logging()
    if argv == ["--version"]:
        print(f"metarun {__version__}")
        return 0
    if argv[:1] == ["help"] and argv[1:2]:
        argv = [*argv[1:], "--help"]  # metarun help table
    name = argv[0] if argv else ""
    if not name or "=" in name or name[0] in "-+~":
        if {"--help", "-h"} & set(argv):
            return help_.main(argparse.Namespace())
        from metarun.commands import train

        return train.main(argv)
    if name not in VERBS:
        if Path(name, ".hydra").is_dir():
            raise UsageError(
                f"{name!r} (command line): is a run directory; expected a verb before it: {', '.join(VERBS)}"
            )
        raise UsageError(
            f"{name!r} (command line): expected key=value or one of {', '.join(VERBS)}{nearest(name, VERBS)}"
        )
    parser = _Parser(prog=f"metarun {name}", description=VERBS[name].__doc__, allow_abbrev=False)
    VERBS[name].add_arguments(parser)
    return VERBS[name].main(parser.parse_args(argv[1:]))


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
    if isinstance(error, BrokenPipeError):
        _drop_output()
        return 1
    if isinstance(error, OSError):
        rule, remedy = "expected a place that can be written", "redirect it elsewhere"
        if not error.filename:
            _drop_output()
            return _print_error(f"output: {reason(error)} (stdout): {rule}; {remedy}", 4)
        remedy = "set hydra.run.dir or hydra.sweep.dir, or make room"
        return _print_error(f"{error.filename}: {reason(error)} (file system): {rule}; {remedy}", 4)
    if type(error).__module__.partition(".")[0] in ("hydra", "omegaconf"):
        return _print_error(f"{str(error)[:300]} (Hydra)", 2)
    if os.environ.get("METARUN_DEBUG"):
        raise error
    first = str(error).partition("\n")[0]
    return _print_error(f"{type(error).__name__}: {first} (metarun itself): METARUN_DEBUG=1 shows where", 1)


def _print_error(message: str, code: int) -> int:
    print(f"metarun: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return code


def _drop_output() -> None:
    """Drops what is still to be printed, or Python complains while it shuts down."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
