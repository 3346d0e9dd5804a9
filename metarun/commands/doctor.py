"""metarun doctor: what this machine has of all that metarun needs or can use, and what to do about the rest.

It looks at versions, devices, METARUN_* in the environment, data, cache, disk, locks and optional packages, and checks
MAML's meta-gradient against central differences, in a few seconds. Nothing is left behind.

Examples:
    metarun doctor
    metarun doctor format=json > machine.json

Exit code: 0 where all is there that runs need, else 1.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from metarun.engine.ranks import refuse_several_processes
from metarun.errors import MetarunError
from metarun.text import count_of, printable

if TYPE_CHECKING:
    from metarun.run.doctor import Finding

PRINTS = "metarun.run.doctor.Checkup"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A format."""
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: one JSON object")


def main(args: argparse.Namespace) -> None:
    """Prints a line for each thing as soon as it was looked at. Raises MetarunError: something needed is not there."""
    refuse_several_processes("doctor")
    from metarun.run.doctor import Checkup, examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if args.format == "text":
            print(printable(_describe(finding)), flush=True)
    lacks = [finding.subject for finding in findings if finding.needed and finding.state != "ok"]
    if args.format == "json":
        print(Checkup(ok=not lacks, findings=findings).to_json().decode(), end="")
    if lacks:
        raise MetarunError(f"{', '.join(lacks)} (doctor): expected {count_of(len(lacks), 'thing')} more that runs need")


def _describe(finding: Finding) -> str:
    """A line: ok or what else, the subject, what was found, and the remedy."""
    state = finding.state if finding.needed or finding.state == "ok" else f"({finding.state})"
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    return f"{state:<10} {finding.subject:<24} {finding.says}{remedy}"
