"""Keeps what a finished run leaves behind, without its weights, under outputs/published; writes the README's results.

python scripts/publish.py RUN...      adds runs of experiments
python scripts/publish.py             only writes the table, and what has no run, anew
"""

import io
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from metarun.cli import main
from metarun.results import runs

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "outputs" / "published"
RESULT = (".hydra/config.yaml", ".hydra/overrides.yaml", "summary.json", "test_tasks.json", "environment.json")
CHOICES = ".hydra/choices.yaml"  # which earlier versions did not keep
SEEN = (CHOICES, "metrics.jsonl", "timing.jsonl", "examples.png")


def publish(folder: Path) -> Path:
    """Copies one run of an experiment to its place."""
    run = runs.read_run(folder)
    if not run.experiment or run.typed or run.evaluation:
        raise SystemExit(f"{folder}: expected a run that was begun with experiment=NAME and no other settings of it")
    target = PUBLISHED / run.experiment / f"budget_{run.config.budget:g}" / str(run.config.seed)
    if folder.resolve() == target:
        raise SystemExit(f"{folder}: is published already")
    copy_kept(folder, target, SEEN)
    return target


def copy_kept(folder: Path, target: Path, more: Sequence[str]) -> None:
    """Copies the result of a run, and more of it; what the target held before stays until the new copy is whole."""
    copy = target.with_name(f"{target.name}.new")
    shutil.rmtree(copy, ignore_errors=True)
    for name in (*RESULT, *(name for name in more if (folder / name).is_file())):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, copy / name)
    environment = json.loads((copy / "environment.json").read_text())
    for session in (environment, *environment.get("continued", [])):  # where metarun lay is nobody's business
        session["argv"] = ["metarun", *(word for word in session["argv"] if "=" in word and "dir=" not in word)]
    (copy / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    copy.rename(target)


def run_verb(*words: str) -> str:
    """What `metarun WORDS` prints."""
    sys.argv, out = ["metarun", *words], io.StringIO()
    with redirect_stdout(out):
        code = main()
    if code:
        raise SystemExit(code)
    return out.getvalue()


def list_without_run() -> str:
    """The experiments that have no run under outputs/published, by paper."""
    papers: dict[str, list[str]] = {}
    files = sorted((ROOT / "conf" / "experiment").rglob("*.yaml"))
    for file in files:
        name = file.relative_to(ROOT / "conf" / "experiment").with_suffix("")
        if not (PUBLISHED / name).is_dir():
            papers.setdefault(name.parent.name, []).append(f"`{name.name}`")
    count = sum(map(len, papers.values()))
    lines = [f"- `{paper}`: {', '.join(names)}" for paper, names in papers.items()]
    return "\n".join([f"Not run here yet, for want of time, {count} of {len(files)}:", "", *lines]) + "\n"


def replace_block(name: str, text: str) -> None:
    """Writes text into the README, between the marks of the block."""
    begin, end = f"<!-- {name} -->\n", "<!-- end -->\n"
    readme = ROOT / "README.md"
    before, found, rest = readme.read_text().partition(begin)
    if not found:
        raise SystemExit(f"README.md: expected the line {begin.strip()}")
    readme.write_text(before + begin + "\n" + text + "\n" + end + rest.partition(end)[2])


if __name__ == "__main__":
    for word in sys.argv[1:]:
        print(publish(Path(word)))
    replace_block("metarun table outputs/published", run_verb("table", str(PUBLISHED)))
    replace_block("experiments without a run", list_without_run())
