"""Short runs, and what has to be the same of two of them."""

import json
import sys
from pathlib import Path

import pytest

from metarun import cli
from metarun.files import write_atomically
from metarun.storage import checkpoint

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("meta_steps=4", "val_every=2", "val_tasks=4", "test_tasks=6", "log_every=1", "model.hidden=[8]")


def result(run):
    """What has to be the same: metrics.jsonl and the summary to the byte, the weights and the optimiser to the bit."""
    run = Path(run)
    summary = json.loads((run / "summary.json").read_text())
    del summary["wall_seconds"]
    saved = checkpoint.newest(run / "checkpoints")
    return (run / "metrics.jsonl").read_bytes(), json.dumps(summary), bits([saved["meta"], saved["optimizer"]])


def bits(value):
    if hasattr(value, "numpy"):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, (list, tuple)) else value


def leave_out_pictures(patch):
    """Runs in this process write their pictures as a word, and save the second that drawing takes."""
    for name in ("draw_curves", "draw_examples"):
        patch.setattr(f"metarun.run.pictures.{name}", lambda *facts: write_atomically(facts[-1], b"a picture"))


def train(folder, *words, draw=False):
    """Trains in this process, into this folder, and draws pictures or writes a word for them; gives the folder."""
    with pytest.MonkeyPatch.context() as patch:
        if not draw:
            leave_out_pictures(patch)
        folder.parent.mkdir(exist_ok=True, parents=True)
        patch.chdir(folder.parent)
        words = ("-m", "metarun", *words, f"hydra.run.dir={folder}")
        patch.setattr(sys, "orig_argv", ["python", *words])
        patch.setattr(sys, "argv", list(words[1:]))
        assert cli.main() == 0
    return folder
