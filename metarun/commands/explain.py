"""metarun explain: what a setting means, by the comments in conf/ and the docstrings of the classes that read it.

KEY is a key (algo.inner_lr, or inner_lr where one key ends so), a choice (algo=maml, maml), a group (algo), a verb, or
json.VERB and json.FILE: the fields of what format=json prints, and of a run's JSON files. Without one the groups and
the keys of the root are listed.

Examples:
    metarun explain algo.inner_lr        its default, type, choices, and the algorithms that have it
    metarun explain algo=maml            formula, paper and settings of an algorithm
    metarun explain data=images          settings of a task source
    metarun explain mine -cd my/conf     a choice of your own
    metarun explain json.summary         the fields of summary.json; json alone lists what there is
"""

import argparse

from metarun.commands.common import find_choices
from metarun.text import printable

PRINTS = "metarun.results.explained.Explained"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A name, and a format."""
    parser.add_argument("key", nargs="?", default="", metavar="KEY", help="a key, a choice, a group or a verb")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="a folder with choices of your own: algo/mine.yaml")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: one JSON object")


def main(args: argparse.Namespace) -> None:
    """Prints what is known."""
    from metarun.config.catalogue import Catalogue
    from metarun.config.folders import ConfigFolders
    from metarun.results.explained import explain
    from metarun.results.explained_text import as_text
    from metarun.results.shapes import PREFIX, explain_shape

    catalogue = Catalogue(ConfigFolders(extra=find_choices(args.config_dir)))
    is_shape = args.key.partition(".")[0] == PREFIX
    found = explain_shape(args.key) if is_shape else explain(args.key, catalogue)
    print(found.to_json().decode().rstrip() if args.format == "json" else printable(as_text(found)))
