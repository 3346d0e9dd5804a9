"""metarun help: what there is to type."""

import textwrap
from collections.abc import Mapping
from typing import Any

from metarun.config.folders import OWN, conf_dir

HELP = """\
metarun: a command-line experiment runner for meta-learning

    metarun [key=value ...]               meta-train and meta-test; without settings: MAML on sinusoids
    metarun -m key=a,b [key=value ...]    a sweep: every combination, each in a directory of its own
    metarun -m a=1,2 b=3,4 zip=[a,b]      a sweep of pairs: the first of a with the first of b, and so on
    metarun -cp DIR/.hydra [key=value]    a new run from a saved config

{verbs}
    metarun VERB --help                   more about a verb; metarun explain KEY: about a setting
    metarun --cfg job                     print the config; works with key=value too
    metarun --hydra-help                  Hydra's own options
    metarun --version

Choices:
{choices}
Common settings:
    seed meta_steps meta_batch val_every val_tasks test_tasks checkpoint_every log_every objective
    budget (share of meta_steps, for a published schedule)
    algo.inner_lr algo.inner_steps algo.eval_inner_steps algo.meta_lr
    data.ways data.shots data.queries data.eval_ways data.train_tasks data.root data.file data.download
    device.name device.threads device.deterministic  engine.chunk  hydra.run.dir
    Each algorithm and task source has more: metarun explain algo=NAME

Exit codes: 0 done, 2 usage or config, 3 data, 4 run directory or checkpoint, 5 diverged, 6 reproduction differs,
130 / 143 / 138 / 140 / 129 stopped by SIGINT / SIGTERM / SIGUSR1 / SIGUSR2 / SIGHUP with a checkpoint saved, 141 the
reader of a pipe has gone, 1 anything else.

Environment: METARUN_DATA data folder, METARUN_TRUST packages whose classes a config may name (with commas),
METARUN_DEBUG=1 tracebacks, METARUN_LOCK=off go on where a network disk has no locks."""


def main(verbs: Mapping[str, Any]) -> None:
    """Prints the help, given the modules of the verbs by name."""
    groups = sorted(path.name for path in conf_dir().iterdir() if path.is_dir())
    choices = "".join(_wrap(f"{group}=", " ".join(OWN.options(group)), 13) for group in groups)
    lines = (_wrap(f"metarun {name}", summarize(verb), 20) for name, verb in verbs.items())
    print(HELP.format(choices=choices, verbs="".join(lines)))


def summarize(verb: Any) -> str:
    """The first sentence of a verb's docstring, without its name."""
    return (verb.__doc__ or "").partition(": ")[2].partition("\n")[0]


def _wrap(name: str, text: str, width: int) -> str:
    """A name, and in a column beside it a text."""
    begin, rest = f"    {name:<{width}}", " " * (width + 4)
    return textwrap.fill(text, 118, initial_indent=begin, subsequent_indent=rest, break_on_hyphens=False) + "\n"
