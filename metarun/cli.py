"""The entry point: help, what is handed over to Hydra with its defaults, and one line for each error.

Nothing here imports torch before the words of the command line are checked.
"""

import argparse
import atexit
import io
import os
import re
import shutil
import sys
import tempfile
import textwrap
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from metarun import __version__
from metarun.commands.jobs import job, run_all, sweep_settings, talk
from metarun.commands.search import check_search, ranges
from metarun.commands.verbs import verb
from metarun.config.compose import Source, compose, conf_dir, jobs, options
from metarun.config.saved import check_choices, dump, saved_config
from metarun.engine.ranks import alone, is_first
from metarun.errors import DivergedError, MetarunError, ProcessEndedError, RunDirError, StoppedError, UsageError
from metarun.run.signals import at_once
from metarun.text import printable, reason

PATIENCE = 10  # seconds
HELP = """\
metarun: a command-line experiment runner for meta-learning

    metarun [key=value ...]               meta-train and meta-test; without settings: MAML on sinusoids
    metarun -m key=a,b [key=value ...]    a sweep: every combination, each in a directory of its own
    metarun eval DIR [key=value ...]      meta-test a trained run again, under other settings
    metarun resume DIR [key=value ...]    continue an interrupted run, or say that it is finished; meta_steps, budget,
                                          the cadences (*_every), device, engine, logger, published and data.root may
                                          change
    metarun reproduce DIR [key=value]     run a finished run again and compare: exit 0 if bitwise identical, else 6;
                                          device, data.root and data.download may change
    metarun table DIR... [format=csv]     runs beside each other, with what the papers report: markdown, csv or json
    metarun report DIR... [out=FILE]      the same as an HTML page with pictures
    metarun -cp DIR/.hydra [key=value]    a new run from a saved config

    metarun --cfg job                     print the config; works with key=value too
    metarun --hydra-help                  Hydra's own options
    metarun --version

Choices:
{choices}
Common settings:
    seed meta_steps meta_batch val_every val_tasks test_tasks checkpoint_every log_every objective
    budget (share of meta_steps, for a published schedule)
    algo.inner_lr algo.inner_steps algo.eval_inner_steps algo.meta_lr
    data.ways data.shots data.queries data.root data.download
    device.name device.threads device.deterministic  engine.chunk  hydra.run.dir
    Each algorithm and task source has more: metarun algo=NAME data=NAME --cfg job

Exit codes: 0 done, 2 usage or config, 3 data, 4 run directory or checkpoint, 5 diverged, 6 reproduction differs,
130 / 143 / 138 / 129 stopped by SIGINT / SIGTERM / SIGUSR1 / SIGHUP with a checkpoint saved, 1 anything else.

Environment: METARUN_DATA data folder, METARUN_TRUST packages whose classes a config may name (with commas),
METARUN_DEBUG=1 tracebacks."""


def main() -> int:
    """Runs the command line; returns its exit code."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:  # closed, as a daemon may have it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no ± shows ?
    try:
        with at_once("nothing that was saved is lost"):
            code = _dispatch(sys.argv[1:])
        sys.stdout.flush()  # or Python would find out, after all is over, that it cannot
        return code
    except (UsageError, RunDirError, DivergedError, StoppedError, ProcessEndedError) as error:
        return _say_once(error)
    except MetarunError as error:
        return _say(str(error), error.code)
    except BrokenPipeError:
        _silence()
        return 1
    except (HydraException, OmegaConfBaseException) as error:
        return _say(f"{str(error)[:300]} (Hydra)", 2)
    except OSError as error:
        if not error.filename:
            _silence()
            return _say(
                f"output: {reason(error)} (stdout): expected a place that can be written; redirect it elsewhere", 4
            )
        return _say(
            f"{error.filename}: {reason(error)} (file system): expected a place that can be written; set "
            f"hydra.run.dir or hydra.sweep.dir, or make room",
            4,
        )
    except KeyboardInterrupt:
        return _say("SIGINT: stopped", 130)
    except Exception as error:
        if os.environ.get("METARUN_DEBUG"):
            raise
        return _say(
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} (metarun itself): "
            f"METARUN_DEBUG=1 shows where",
            1,
        )


def _say_once(error: MetarunError) -> int:
    """Where there are several processes, the first one has the same to say, and perhaps a checkpoint to save.

    torchrun ends all of them as soon as one has failed, so the others wait.
    """
    with suppress(UsageError):
        if not is_first():
            time.sleep(PATIENCE)
            return error.code
    return _say(str(error), error.code)


def _say(message: str, code: int) -> int:
    print(f"metarun: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return code


def _silence() -> None:
    """Drops what is still to be printed, or Python complains while it shuts down."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(argv: list[str]) -> int:
    # OpenMP's threads wait for each other by spinning, unless told before torch starts: two runs on the same cores are
    # then ten times slower than one after the other. A short spin costs a run alone nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own may not be installed here, and matplotlib then does not start
    talk()
    if argv[:1] == ["help"] or {"--help", "-h"} & set(argv):
        return _help()
    if argv == ["--version"]:
        print(f"metarun {__version__}")
        return 0
    if argv and "=" not in argv[0] and argv[0][:1] not in ("-", "+", "~"):
        return verb(*argv)
    return _hydra(argv)


def _help() -> int:
    print(HELP.format(choices=_choices()))
    return 0


def _choices() -> str:
    groups = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    return "".join(
        textwrap.fill(
            f"{group.name + '=':<13}{' '.join(options(group.name, Source()))}",
            width=118,
            initial_indent="    ",
            subsequent_indent=" " * 17,
            break_on_hyphens=False,
        )
        + "\n"
        for group in groups
    )


def _hydra(argv: list[str]) -> int:
    """Checks every job of a command line, then hands it over to Hydra."""
    parser = get_args_parser()
    parser.error = _usage  # pyright: ignore[reportAttributeAccessIssue]
    args = parser.parse_intermixed_args(argv)  # overrides may stand before and after options
    if args.help:
        return _help()
    if args.experimental_rerun:
        raise UsageError(
            "--experimental-rerun (command line): would unpickle a file, which can run code; use metarun reproduce DIR"
        )
    if args.config_name:
        raise UsageError(
            f"--config-name {args.config_name} (command line): metarun has one config; choose experiment=name"
        )
    if args.resolve and not args.cfg:
        raise UsageError("--resolve (command line): expected --cfg job beside it")
    if args.cfg and args.multirun:
        raise UsageError("--cfg (command line): shows one config, and -m makes several; leave out either")
    with tempfile.TemporaryDirectory() if args.config_path else nullcontext() as temporary:
        return _handed_over(args, argv, _source(args, temporary))


def _handed_over(args: argparse.Namespace, argv: list[str], source: Source) -> int:
    runs = not (args.cfg or args.hydra_help or args.info or args.shell_completion)
    if runs:
        if args.multirun:
            alone("a sweep")
        _check(args, source)
    elif args.cfg and not args.multirun:
        compose(args.overrides, source)  # what is shown is what would run
    # Where configs come from is settled; Hydra wants the options first, and all overrides together.
    named = args.config_path
    elsewhere = ("-cp", "--config-path", named, f"-cp={named}", f"--config-path={named}")
    flags = [word for word in argv if word not in args.overrides and word not in elsewhere]
    sys.argv = ["metarun", *flags, *args.overrides, *_defaults(args.overrides, args.multirun, runs)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and main() reports
    app = hydra.main(config_path=str(source.primary or conf_dir()), config_name="config", version_base="1.3")(job)
    if not runs:
        return app() or 0
    run_all(app, args.multirun)
    return 0


def _check(args: argparse.Namespace, source: Source) -> None:
    """Every job is composed and built, and the data of each made ready, before the first one starts."""
    for word in args.overrides:
        key, _, value = word.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir") and value.strip("'\"") in ("", "null"):
            raise UsageError(f"{word!r} (command line): expected a folder; give it a name, or leave it out")
        if key == ("hydra.run.dir" if args.multirun else "hydra.sweep.dir"):
            kinds = ("a sweep", "hydra.sweep.dir") if args.multirun else ("a run without -m", "hydra.run.dir")
            raise UsageError(f"{word!r} (command line): {kinds[0]} has its folder from {kinds[1]}")
    chosen = [word for word in args.overrides if word.partition("=")[0] == "sweep" and word != "sweep=null"]
    if chosen and not args.multirun:
        raise UsageError(f"{chosen[0]!r} (command line): a sweep has several runs; add -m")
    between = [f"{key}={value}" for key, value in ranges(args.overrides, source)]
    combinations = [[*words, *between] for words in jobs(args.overrides, source)] if args.multirun else [args.overrides]
    configs = [compose(words, source) for words in combinations]
    if args.multirun:
        check_search(args.overrides, configs, source)
    from metarun.run.build import assemble

    prepared = []
    for words, config in zip(combinations, configs, strict=True):
        try:
            experiment = assemble(config)
        except UsageError as error:
            raise UsageError(f"{error} (in {' '.join(words)})" if args.multirun else str(error)) from error
        if config.data not in prepared:
            experiment.source.prepare(experiment.device)
            prepared.append(config.data)


def _usage(message: str) -> NoReturn:
    raise UsageError(f"{message} (command line): see metarun --help")


def _source(args: argparse.Namespace, temporary: str | None) -> Source:
    """The folders named on the command line.

    A saved config may be a stranger's, and Hydra would use whatever else lies in its folder; so Hydra is given a copy
    of the config alone, once that is seen to hold values only.
    """
    primary = Path(temporary) if temporary else None
    if primary:
        plain = saved_config(Path(args.config_path, "config.yaml")).plain()
        (primary / "config.yaml").write_text(dump(plain), encoding="utf-8")
    extra = Path(args.config_dir).resolve() if args.config_dir else None
    if extra and not extra.is_dir():
        raise UsageError(f"{args.config_dir} (--config-dir): expected a folder with choices, such as algo/mine.yaml")
    if extra:
        check_choices(extra)
    return Source(primary, extra)


def _defaults(overrides: list[str], sweep: bool, runs: bool) -> list[str]:
    """Metarun's settings for Hydra itself, where the user has given none."""
    given = {word.lstrip("+~").partition("=")[0] for word in overrides}
    wanted = {
        "hydra.sweep.subdir": "${hydra.job.override_dirname}",
        "hydra.job.config.override_dirname.exclude_keys": "[data.root]",
        "hydra.job.name": "metarun",
        "hydra.output_subdir": "null",  # run.py writes .hydra itself, once it has seen what is there
        "hydra/job_logging": "none",
        "hydra/hydra_logging": "none",
    }
    if sweep:
        wanted |= {f"+{key}": value for key, value in sweep_settings().items()}
    where = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    if runs and not is_first():  # Hydra wants a folder, and this process needs none
        given.discard(where)
        wanted[where] = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, wanted[where], ignore_errors=True)
    elif runs and where not in given:
        from metarun.storage.rundir import fresh

        wanted[where] = str(fresh(Path("outputs", "sweeps") if sweep else Path("outputs")))
    words = [f"{key}={value}" for key, value in wanted.items() if key not in given]
    if sweep and "hydra/launcher" in given:  # its jobs may start in another folder than this one
        relative = re.compile(r"hydra\.sweep\.dir=(?=[\w.])")
        here = [relative.sub("hydra.sweep.dir=${hydra.runtime.cwd}/", word) for word in (*overrides, *words)]
        words += [word for word in here if word.startswith("hydra.sweep.dir=${hydra.runtime.cwd}")]
    return words
