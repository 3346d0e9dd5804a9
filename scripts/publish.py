"""Keeps what a finished run leaves behind, without its weights, under outputs/published, and the README's table of it.

python scripts/publish.py RUN...      adds runs of experiments
python scripts/publish.py             only writes the table anew
"""

import io
import json
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

from metarun.cli import main
from metarun.results import runs

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "outputs" / "published"
KEPT = (
    *(".hydra/config.yaml", ".hydra/overrides.yaml"),
    *("summary.json", "test_tasks.json", "environment.json", "metrics.jsonl", "timing.jsonl"),
)
BEGIN, END = "<!-- metarun table outputs/published -->\n", "<!-- end -->\n"


def publish(folder: Path) -> Path:
    """Copies one run; what was published of the same seed and budget stays until the new copy is whole."""
    run = runs.read_run(folder)
    if not run.experiment or run.typed or run.evaluation:
        raise SystemExit(f"{folder}: expected a run that was begun with experiment=NAME and no other settings of it")
    target = PUBLISHED / run.experiment / f"budget_{run.config.budget:g}" / str(run.config.seed)
    if folder.resolve() == target:
        raise SystemExit(f"{folder}: is published already")
    copy = target.with_name(f"{target.name}.new")
    shutil.rmtree(copy, ignore_errors=True)
    for name in KEPT:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, copy / name)
    for name in (".hydra/choices.yaml", "examples.png"):  # earlier versions kept neither
        if (folder / name).is_file():
            shutil.copyfile(folder / name, copy / name)
    environment = json.loads((copy / "environment.json").read_text())
    for session in (environment, *environment.get("continued", [])):  # where metarun lay is nobody's business
        session["argv"] = ["metarun", *(word for word in session["argv"] if "=" in word and "dir=" not in word)]
    (copy / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    copy.rename(target)
    return target


def table() -> str:
    """What `metarun table outputs/published` prints."""
    sys.argv, out = ["metarun", "table", str(PUBLISHED)], io.StringIO()
    with redirect_stdout(out):
        code = main()
    if code:
        raise SystemExit(code)
    return out.getvalue()


if __name__ == "__main__":
    for word in sys.argv[1:]:
        print(publish(Path(word)))
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    readme.write_text(before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2])
