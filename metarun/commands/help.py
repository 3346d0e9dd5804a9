"""metarun help: what there is to type."""

import textwrap

from metarun.config.folders import OWN, conf_dir

HELP = """\
metarun: a command-line experiment runner for meta-learning

    metarun [key=value ...]               meta-train and meta-test; without settings: MAML on sinusoids
    metarun -m key=a,b [key=value ...]    a sweep: every combination, each in a directory of its own
    metarun -m a=1,2 b=3,4 zip=[a,b]      a sweep of pairs: the first of a with the first of b, and so on
    metarun eval DIR [key=value ...]      meta-test a trained run again, under other settings, or with data=NAME on
                                          another task source
    metarun adapt RUN support=... query=...
                                          apply a trained run to examples of your own: predictions.csv, adapt.html
    metarun export DIR FILE.safetensors   a trained run in one file, for metarun.load(FILE) on machines without its data
    metarun resume DIR [key=value ...]    continue an interrupted run, or print the result of a finished one
    metarun reproduce DIR [key=value]     run a finished run again and compare: exit 0 if bitwise identical, else 6
    metarun check [key=value ...]         see that the parts of a run fit together, your own above all; trains nothing
    metarun watch [DIR...]                the runs that go on, live, from any shell; once=true: as they are now
    metarun table DIR... [format=csv]     runs beside each other, with what the papers report: markdown, csv or json
    metarun report DIR... [out=FILE]      the same as an HTML page with pictures
    metarun -cp DIR/.hydra [key=value]    a new run from a saved config

    metarun VERB --help                   more about a verb, such as eval or watch
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
    Each algorithm and task source has more: metarun algo=NAME data=NAME --cfg job

Exit codes: 0 done, 2 usage or config, 3 data, 4 run directory or checkpoint, 5 diverged, 6 reproduction differs,
130 / 143 / 138 / 129 stopped by SIGINT / SIGTERM / SIGUSR1 / SIGHUP with a checkpoint saved, 141 the reader of a pipe
has gone, 1 anything else.

Environment: METARUN_DATA data folder, METARUN_TRUST packages whose classes a config may name (with commas),
METARUN_DEBUG=1 tracebacks, METARUN_LOCK=off go on where a network disk has no locks."""


def main() -> None:
    """Prints the help."""
    groups = sorted(path.name for path in conf_dir().iterdir() if path.is_dir())
    print(HELP.format(choices="".join(_wrap(group, OWN.options(group)) for group in groups)))


def _wrap(group: str, names: list[str]) -> str:
    """The lines that list the choices of a group."""
    text = f"{group + '=':<13}{' '.join(names)}"
    return textwrap.fill(text, 118, initial_indent=" " * 4, subsequent_indent=" " * 17, break_on_hyphens=False) + "\n"
