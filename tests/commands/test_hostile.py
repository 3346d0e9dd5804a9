"""Files from strangers, end to end: nothing in them is executed, followed or believed, whatever the verb.

What each reader refuses is tested on the reader: configs in tests/config/test_saved.py, choices in test_compose.py, the
other files of a run and checkpoints in tests/storage/. Here is a case for each verb, and for each of those readers.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.runs import QUICK

from metarun.storage import checkpoint


class _Harmful:
    """A pickle of this makes a folder when it is read."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


def _config(text, old):
    path = Path("run/.hydra/config.yaml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, text))


def _json(name, change):
    path = Path("run", name)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _checkpoints(change):
    """Every checkpoint of the run, with its payload changed, and with a manifest that matches."""
    folder = Path("run/checkpoints")
    for step in checkpoint.steps(folder):
        buffer = io.BytesIO()
        torch.save(change(checkpoint.load(folder, step)), buffer)
        path, content = folder / f"step-{step:08d}.pt", buffer.getvalue()
        path.write_bytes(content)
        facts = {"step": step, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        path.with_suffix(".json").write_text(json.dumps(facts))


def _link(name, target):
    path = Path("run", name)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(Path(target).resolve())


def _sparse(path):
    with open(path, "wb") as file:
        file.truncate(10**11)


ROW = '{"step": 2, "split": "val", "mse": "x", "ci95": 1, "tasks": 2, "by_step": [1]}\n'
CASES = [
    (["eval", "run"], lambda: _checkpoints(lambda _: _Harmful()), "checkpoint"),
    (["eval", "run"], lambda: _link("checkpoints", "elsewhere"), "a symbolic link|checkpoint"),
    (["resume", "run"], lambda: _sparse(Path("run/summary.json")), "summary.json"),
    (["resume", "run"], lambda: _link(".hydra", "elsewhere"), "run"),
    (["resume", "run", "meta_steps=5"], lambda: _checkpoints(lambda p: {**p, "metrics": ROW}), "line 1"),
    (["reproduce", "run"], lambda: _json("environment.json", lambda e: e.update(versions="x")), "environment.json"),
    (["reproduce", "run"], lambda: _json("environment.json", lambda e: e.update(threads={"_target_": "os.system"})), "environment.json"),
    (["reproduce", "run"], lambda: _json("environment.json", lambda e: e.update(config="0")), "was changed"),
    (["-cp", "run/.hydra", "hydra.run.dir=again"], lambda: _config("os.mkdir", "metarun.algos.maml.MAML"), "'os.mkdir'"),
    (["-cp", "run/.hydra", "hydra.run.dir=again"], lambda: _config("seed: ${oc.env:HOME}", "seed: 0"), "interpolation"),
    ([*QUICK, "hydra.run.dir=run"], lambda: Path("run/status.json").write_text("[" * 200_000), "status.json"),
    ([*QUICK, "hydra.run.dir=run"], lambda: _config("objective: '\x1b]0;owned\x07'", "objective: val"), "config.yaml"),
]  # fmt: skip


def _tree():
    return {
        path: path.read_bytes() if path.is_file() and path.stat().st_size < 10**6 else path.lstat().st_mode
        for path in Path().rglob("*")
    }


@pytest.mark.parametrize(("words", "spoil", "said"), CASES, ids=[f"{c[0][0]} {n}" for n, c in enumerate(CASES)])
def test_a_strangers_file_is_refused_in_a_line(metarun, finished, words, spoil, said):
    shutil.copytree(finished, "run")
    Path("victim").write_text("precious")
    Path("elsewhere").mkdir()
    spoil()
    before = _tree()
    code, _, err = metarun(*words)
    assert code in (2, 4), err
    lines = [line for line in err.splitlines() if not line.startswith("reproducing")]
    assert len(lines) == 1, err
    assert lines[0].startswith("metarun: error: ")
    assert any(part in lines[0] for part in said.split("|")), err
    assert not {"\x1b", "\x07"} & set(err)
    assert _tree() == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl", "metarun.log", "summary.json"])
def test_a_link_is_refused_or_replaced_and_never_written_through(metarun, finished, name):
    shutil.copytree(finished, "run")
    Path("victim").write_text(Path("run", name).read_text())
    before = Path("victim").read_bytes()
    _link(name, "victim")
    code, _, err = metarun("resume", "run", "meta_steps=5")
    assert code in (0, 4), err
    assert "Traceback" not in err
    assert Path("victim").read_bytes() == before


def test_what_is_shown_of_a_stranger_cannot_steer_a_terminal(metarun, finished):
    shutil.copytree(finished, "run")
    _json("summary.json", lambda s: s.update(algorithm="\x1b]0;owned\x07\x1b[2J", details={"\x9b31m": "\r\x08"}))
    for words in (["resume", "run"], ["table", "run"], ["table", "run", "format=csv"]):
        code, out, err = metarun(*words)
        assert code == 0, err
        assert not {"\x1b", "\x07", "\x9b", "\r", "\x08"} & set(out + err)


def test_nothing_in_the_working_directory_is_imported(tmp_path):
    for name in ("torch", "hydra", "yaml", "json", "metarun_plugin", "hydra_plugins/evil"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("open('owned', 'w').close()\n")
    done = subprocess.run([sys.executable, "-m", "metarun", "algo=mamll"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "did you mean maml?" in done.stderr
    assert not (tmp_path / "owned").exists()
