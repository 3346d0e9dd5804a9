"""metarun report: runs beside each other, as an HTML page with pictures.

live=true serves the page on this machine alone, with the runs that are at work, until ctrl-C. It is made anew when
their files change, and a browser that shows it follows.

Examples:
    metarun report outputs
    metarun report outputs/sweeps out=pages/sweeps.html
    metarun report outputs evaluations=true      with what metarun eval made of the runs
    metarun report outputs live=true
"""

import argparse
import sys
from pathlib import Path

from metarun.commands.common import add_folders, compare_folders
from metarun.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders with runs, and the file to write, or where to serve the page."""
    add_folders(parser)
    parser.add_argument("--out", help="the file to write, report.html by default; out=FILE is the same")
    parser.add_argument("--live", choices=("true", "false"), default="false", help="live=true: serve the page")
    parser.add_argument("--port", type=_read_port, help="port=8000 to serve it there; by default one that is free")


def _read_port(word: str) -> int:
    if not word.isdecimal() or int(word) > 65535:
        raise UsageError(f"{word!r} (port): expected a number up to 65535, such as 8000; 0: any that is free")
    return int(word)


def main(args: argparse.Namespace) -> None:
    """Writes the report, or serves it."""
    if args.live == "true":
        if args.out is not None:
            raise UsageError("out= (command line): no file is written with live=true; leave one of them out")
        _serve(args.folders, args.evaluations == "true", args.port or 0)
        return
    if args.port is not None:
        raise UsageError("port= (command line): is for live=true; add that, or leave it out")
    if args.out == "":
        raise UsageError("'' (out): expected a file to write, as in out=report.html")
    from metarun.results.report import check_place, write_report

    out = Path(args.out or "report.html")
    check_place(out)  # before the work
    write_report(*compare_folders(args.folders, args.evaluations == "true"), out)


def _serve(folders: list[str], evaluations: bool, port: int) -> None:
    for name in folders:
        if not Path(name).is_dir():
            raise UsageError(f"{name!r} (command line): expected a folder with runs")
    from metarun.results.live import Live, Server
    from metarun.run.signals import until_ctrl_c

    with Server(Live(folders, evaluations), port) as server, until_ctrl_c():
        print(server.address, flush=True)
        print("served on this machine alone; ctrl-C ends it", file=sys.stderr)
        server.serve_forever()
