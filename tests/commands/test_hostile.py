"""Files from strangers, end to end: nothing in them is executed, followed or believed, whatever the verb.

What each reader refuses is tested on the reader: configs in tests/config/test_saved.py, choices in test_compose.py, the
other files of a run and checkpoints in tests/storage/. Here is a case for each verb, and for each of those readers.
"""

import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from helpers.runs import QUICK

from metarun.data.omniglot import Omniglot
from metarun.errors import DataError
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


def _archive(entries):
    """A zip file of (name, content) with nothing checked."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def _encrypted(content):
    """The same archive, said to be encrypted."""
    return content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")


def _of_png(width, height):
    """The beginning of an image of that size."""
    head = struct.pack(">II", width, height) + b"\x01\x00\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + b"\x00" * 4


def _every(image):
    """An archive that has all of the background names, each with this image."""
    return [
        (f"images_background/{alphabet}/character{c:02d}/{c:04d}_{n:02d}.png", image)
        for alphabet, (part, count, _) in Omniglot.alphabets.items()
        if part == "images_background"
        for c in range(1, count + 1)
        for n in range(1, 21)
    ]


BACKGROUND = Path("data/omniglot-py/images_background.zip")
HOSTILE_DATA = {
    "names that lead out": lambda: BACKGROUND.write_bytes(_archive([("../../owned", b"x"), ("/owned", b"x")])),
    "a link": lambda: BACKGROUND.write_bytes(_archive([("images_background/x", b"/etc/passwd")])),
    "not a zip": lambda: BACKGROUND.write_bytes(b"PK" * 1000),
    "a huge archive": lambda: _sparse(BACKGROUND),
    "images of another size": lambda: BACKGROUND.write_bytes(_archive(_every(_of_png(100_000, 100_000)))),
    "images that unpack without end": lambda: BACKGROUND.write_bytes(_archive(_every(bytes(100_000)))),
    "encrypted images": lambda: BACKGROUND.write_bytes(_encrypted(_archive(_every(b"x")))),
    "a pipe": lambda: os.mkfifo(BACKGROUND),
    "a device": lambda: BACKGROUND.symlink_to("/dev/zero"),
    "a cut archive": lambda: BACKGROUND.write_bytes(_archive(_every(b"x"))[:-30]),
}


@pytest.mark.parametrize("case", HOSTILE_DATA)
def test_strangers_data_is_refused(tmp_path, monkeypatch, data_root, case):
    monkeypatch.chdir(tmp_path)
    BACKGROUND.parent.mkdir(parents=True)
    (BACKGROUND.parent / "images_evaluation.zip").symlink_to(data_root / "omniglot-py" / "images_evaluation.zip")
    HOSTILE_DATA[case]()
    before = sorted(Path().rglob("*"))
    with pytest.raises(DataError):
        Omniglot(root="data", download=False).prepare(torch.device("cpu"))
    assert [path for path in sorted(Path().rglob("*")) if path not in before and path.suffix != ".lock"] == []


def test_nothing_in_the_working_directory_is_imported(tmp_path):
    for name in ("torch", "hydra", "yaml", "json", "metarun_plugin", "hydra_plugins/evil"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("open('owned', 'w').close()\n")
    done = subprocess.run([sys.executable, "-m", "metarun", "algo=mamll"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "did you mean maml?" in done.stderr
    assert not (tmp_path / "owned").exists()
