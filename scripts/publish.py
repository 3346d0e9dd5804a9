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

from metarun import runs
from metarun.cli import main

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "outputs" / "published"
KEPT = (
    *(".hydra/config.yaml", ".hydra/overrides.yaml", "summary.json", "test_tasks.json", "environment.json"),
    *("metrics.jsonl", "timing.jsonl"),
)
BEGIN, END = "<!-- metarun table outputs/published -->\n", "<!-- end -->\n"


def publish(folder: Path) -> Path:
    """Copies one run."""
    run = runs.read(folder)
    if not run.experiment:
        raise SystemExit(f"{folder}: was not begun with experiment=NAME")
    target = PUBLISHED / run.experiment / f"budget_{run.config.budget:g}" / str(run.config.seed)
    shutil.rmtree(target, ignore_errors=True)
    for name in KEPT:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target / name)
    environment = json.loads((target / "environment.json").read_text())
    for session in (environment, *environment.get("continued", [])):  # where metarun lay is nobody's business
        session["argv"] = ["metarun", *(word for word in session["argv"] if "=" in word and "dir=" not in word)]
    (target / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
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
