"""metarun check: see that the parts of a run fit together, as each run does before it starts; trains nothing.

Examples:
    metarun check algo=reptile data=images data.root=mine
    metarun check -cd my/conf model=mine          METARUN_TRUST=my_package before it, for classes of your own
"""

import argparse
import tempfile

from metarun.engine.ranks import refuse_several_processes
from metarun.text import count_of, printable

CHECKED = (
    "shapes and types; equal tasks again, alone and in another order, of a source of your own also built anew; splits "
    "apart; no global random numbers; no support examples in the query; a gradient; answers that depend on no query "
    "answer, nor on the order of the query"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of a run, or with -m of a sweep."""
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings, as for a run")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder with choices of your own: data/mine.yaml")
    parser.add_argument("-cp", "--config-path", metavar="DIR/.hydra", help="a saved config")
    parser.add_argument("-m", "--multirun", action="store_true", help="check every combination, as a sweep does")


def main(args: argparse.Namespace) -> None:
    """Prints what the parts are seen to be, and what was checked; makes no folder."""
    refuse_several_processes("check")
    from metarun.commands.folders import as_typed
    from metarun.commands.jobs import check_jobs, find_folders
    from metarun.run.build import build_source, prepare_experiment
    from metarun.run.contract import check_contract, is_metarun
    from metarun.run.source_contract import check_built_anew
    from metarun.tasks import SPLITS

    args.overrides = as_typed(args.words)
    with tempfile.TemporaryDirectory() as temporary:
        jobs, _ = check_jobs(args, find_folders(args, temporary if args.config_path else None))
        for job in jobs:
            experiment = prepare_experiment(job.config)
            found = check_contract(experiment, thorough=True)
            if not is_metarun(experiment.source):
                again = build_source(job.config)
                again.prepare(experiment.device)
                check_built_anew(experiment.source, again, job.config.seed, SPLITS)
            if args.multirun:
                print(printable(f"{'job':<10} {' '.join(job.words)}"))
            for subject, line in found.lines:
                print(printable(f"{subject:<10} {line}"))
            print(f"{'checked':<10} {CHECKED}")
            but = f" but for {count_of(len(found.doubts), 'warning')}, see above" if found.doubts else ""
            print(f"{'':<10} all as expected{but}, in {found.seconds:.1f} s", flush=True)
