"""The entry point: which verb, help, one line for each error, exit codes. Hydra is imported for a run or a sweep."""

import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from metarun import __version__
from metarun.commands import (
    adapt,
    check,
    complete,
    completion,
    diff,
    doctor,
    export,
    ls,
    report,
    reproduce,
    resume,
    rm,
    show,
    table,
    tag,
    watch,
)
from metarun.commands import eval as evaluate
from metarun.commands import explain as explain_
from metarun.commands import help as help_
from metarun.commands.common import set_up_logging
from metarun.commands.parser import Parser
from metarun.commands.words import refuse_blanks
from metarun.config import other_names
from metarun.config.own_code import explain, place_of
from metarun.engine.ranks import is_rank_zero
from metarun.errors import (
    DivergedError,
    MetarunError,
    ProcessEndedError,
    RunDirError,
    StoppedError,
    UsageError,
    describe_os_error,
)
from metarun.run.signals import stop_at_once
from metarun.text import nearest, printable, reason

# A verb is a module with add_arguments(parser) and main(args).
VERBS = {
    "eval": evaluate,
    "adapt": adapt,
    "export": export,
    "resume": resume,
    "reproduce": reproduce,
    "check": check,
    "ls": ls,
    "show": show,
    "diff": diff,
    "watch": watch,
    "table": table,
    "report": report,
    "tag": tag,
    "rm": rm,
    "explain": explain_,
    "doctor": doctor,
    "completion": completion,
}
PATIENCE = 10  # seconds
RUN_ELSEWHERE = "set hydra.run.dir or hydra.sweep.dir"


def main(argv: list[str] | None = None) -> int:
    """Runs a command line, by default this process's own; returns its exit code.

    It may be called several times and in any thread, also from a notebook; the streams, the environment, the log and
    torch's settings are as before then. In a thread that is not the main one, signals are left to the main one.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["complete"]:  # of a shell, in the middle of somebody's line
        complete.main(argv[1:], VERBS)
        return 0
    with _borrowing_the_process():
        try:
            Path.cwd()
            if data := os.environ.get("METARUN_DATA"):  # jobs may be in another folder (hydra.job.chdir)
                os.environ["METARUN_DATA"] = os.path.abspath(os.path.expanduser(data))
            with stop_at_once("nothing that was saved is lost"):
                _dispatch(argv)
            sys.stdout.flush()  # or Python would find out, after all is over, that it cannot
            return 0
        except SystemExit as exit_:  # argparse and Hydra, when they have printed what was asked for
            return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        except Exception as error:
            return _report(error, "mend that" if argv[:1] and argv[0] in VERBS else RUN_ELSEWHERE)


def _take_hydra() -> dict[type, Any]:
    """What Hydra has initialised in this process, by a notebook or an earlier run; it is as new then."""
    instances = getattr(getattr(sys.modules.get("hydra.core.singleton"), "Singleton", None), "_instances", {})
    return {cls: instances.pop(cls) for cls in list(instances) if cls.__name__ in ("GlobalHydra", "HydraConfig")}


class _Output:
    """A standard stream, with ? for a sign that it has not, such as ± on some terminals.

    Args:
        stream: sys.stdout or sys.stderr; None where it is closed, as a daemon may have it.
        failure: raised where the stream cannot be written; None for stderr: nobody could read of it.
    """

    def __init__(self, stream: Any, failure: type[Exception] | None):
        self.stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115
        self._failure = failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Writes a text."""
        if encoding := getattr(self.stream, "encoding", None):
            text = text.encode(encoding, "replace").decode(encoding)
        return self._try(lambda: self.stream.write(text))

    def flush(self) -> None:
        """Hands over what was written."""
        self._try(self.stream.flush)

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except OSError as error:
            if self._failure is None:
                if self.stream is sys.__stderr__:
                    _discard(self.stream)
                return 0
            raise self._failure(
                f"output (stdout): {reason(error)}: expected a place that can be written; redirect it elsewhere"
            ) from error


def _discard(stream: Any) -> None:
    """Sends what is still to be written nowhere, or Python ends with an exit code of its own while it shuts down."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _OutputError(RunDirError):
    """The standard output cannot be written."""


@contextmanager
def _borrowing_the_process() -> Iterator[None]:
    """Sets up streams, environment and log for a command line; afterwards they are as before."""
    streams, environment, log = (sys.stdout, sys.stderr), dict(os.environ), logging.getLogger("metarun")
    before = log.handlers, log.level, log.propagate
    hydra = _take_hydra()
    sys.stdout, sys.stderr = _Output(sys.stdout, _OutputError), _Output(sys.stderr, None)
    # OpenMP's threads wait for each other by spinning, unless told otherwise before torch starts: two runs on the same
    # cores are then ten times slower than one after the other. A short spin costs a run alone nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own may not be installed here, and matplotlib then does not start
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        log.handlers, log.level, log.propagate = before
        for name in {*os.environ, *environment}:
            if name not in environment:
                del os.environ[name]
            elif os.environ.get(name) != environment[name]:
                os.environ[name] = environment[name]
        _take_hydra()
        if hydra:
            sys.modules["hydra.core.singleton"].Singleton._instances |= hydra
        if device := sys.modules.get("metarun.engine.device"):  # which imports torch
            device.put_back()


def _dispatch(argv: list[str]) -> None:
    """Calls what the words name: a verb, or a run or a sweep through Hydra."""
    set_up_logging()
    asks = {"--help", "-h"} & set(argv)
    if argv[:1] in (["help"], ["explain"]) and set(argv[1:2]) & set(VERBS):
        if argv[2:] and not asks:
            raise UsageError(f"{argv[2]!r} (command line): expected nothing after the verb, whose help is text")
        argv, asks = argv[1:], True  # metarun help table
    elif argv[:1] == ["help"] and argv[1:] and not asks:
        argv = ["explain"] * bool({"=", "."} & set(argv[1])) + argv[1:]  # metarun help algo.inner_lr
    elif asks and argv[0] in asks and argv[1:2]:
        argv = [*argv[1:], argv[0]]  # metarun --help table
    name = argv[0] if argv else ""
    is_setting = not name or "=" in name or name[0] in "-+~"
    if is_setting and "--version" in argv:
        print(f"metarun {__version__}")
    elif name == "help" or (is_setting and asks):
        help_.main(VERBS)
    elif name in VERBS:
        parser = Parser(name, VERBS[name])
        print(parser.format_help(), end="") if asks else VERBS[name].main(parser.read(argv[1:]))
    elif is_setting:
        from metarun.commands import train

        train.main(argv)
    else:
        refuse_blanks(argv)
        raise UsageError(_describe_unknown(name))


def _describe_unknown(name: str) -> str:
    """What to say of a first word that is no verb."""
    verbs = ", ".join([*VERBS, "help"])
    if os.path.isdir(Path(name, ".hydra")):
        return f"{name!r} (command line): is a run directory; expected a verb before it: {verbs}"
    other = other_names.VERBS.get(name.lower())
    remedy = f"; did you mean {other}?" if other else nearest(name, VERBS)
    return f"{name!r} (command line): expected key=value or one of {verbs}{remedy}"


def _report(error: Exception, remedy: str) -> int:
    """Prints the line of an error, with that remedy where a file cannot be written; returns the exit code."""
    error = explain(error) or error
    if os.environ.get("METARUN_DEBUG") and error.__cause__ and place_of(error.__cause__):
        raise error
    if isinstance(error, (UsageError, RunDirError, DivergedError, StoppedError, ProcessEndedError)):
        with suppress(UsageError):
            if not is_rank_zero():  # rank 0 says the same, and may have a checkpoint to save,
                time.sleep(PATIENCE)  # before torchrun ends all ranks because this one has failed
                return error.code
    if isinstance(error, _OutputError):
        if sys.__stdout__ is not None and sys.__stdout__ is getattr(sys.stdout, "stream", None):
            _discard(sys.__stdout__)
        if isinstance(error.__cause__, BrokenPipeError):
            return 128 + signal.SIGPIPE  # silent, as other tools: `metarun table DIR | head -1`
    if isinstance(error, MemoryError) or "can't start new thread" in str(error):
        error = OSError(errno.ENOMEM if isinstance(error, MemoryError) else errno.EAGAIN, str(error) or "out of memory")
    if isinstance(error, OSError):
        error = describe_os_error(error, remedy)
    if isinstance(error, MetarunError):
        return _print_error(str(error), error.code)
    if type(error).__module__.partition(".")[0] in ("hydra", "omegaconf"):
        return _print_error(f"{str(error)[:300]} (Hydra)", 2)
    if os.environ.get("METARUN_DEBUG"):
        raise error
    return _print_error(f"{type(error).__name__}: {reason(error)} (metarun itself): METARUN_DEBUG=1 shows where", 1)


def _print_error(message: str, code: int) -> int:
    print(f"metarun: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return code
