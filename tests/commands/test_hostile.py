"""Files from strangers: nothing in them is executed, followed, waited for or believed. One line each, and soon."""

import hashlib
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from helpers.runs import QUICK

from metarun.storage import checkpoint

VERBS = {
    "eval": ["eval", "run"],
    "resume": ["resume", "run"],
    "longer": ["resume", "run", "meta_steps=5"],
    "reproduce": ["reproduce", "run"],
    "-cp": ["-cp", "run/.hydra", "hydra.run.dir=again"],
    "same": [*QUICK, "hydra.run.dir=run"],
}
SECONDS = 2


class _Harmful:
    """A pickle of this makes a folder when it is read."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


def _config(text, old=None):
    path = Path("run/.hydra/config.yaml")
    path.write_text(path.read_text().replace(old, text) if old else text)


def _bomb(levels):
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def _json(name, change):
    path = Path("run", name)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _manifested(path, content):
    """A file with a manifest that matches, as only someone who means it would write it."""
    path.write_bytes(content)
    facts = {"step": int(path.stem[5:]), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(facts))


def _checkpoints(change):
    """Every checkpoint of the run, with its payload changed."""
    folder = Path("run/checkpoints")
    for step in checkpoint.steps(folder):
        buffer = io.BytesIO()
        torch.save(change(checkpoint.load(folder, step)), buffer)
        _manifested(folder / f"step-{step:08d}.pt", buffer.getvalue())


def _contents(change):
    folder = Path("run/checkpoints")
    for step in checkpoint.steps(folder):
        path = folder / f"step-{step:08d}.pt"
        _manifested(path, change(path.read_bytes()))


@lru_cache
def _compressed(content):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry) if "/data/" not in entry.filename else bytes(20_000_000))
    return out.getvalue()


def _replaced(name, make):
    path = Path("run", name)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def _link(target):
    return lambda path: path.symlink_to(Path(target).resolve())


def _sparse(size):
    def make(path):
        with open(path, "wb") as file:
            file.truncate(size)

    return make


def _with(key, value):
    return lambda payload: {**payload, key: value}


def _meta(change):
    return lambda payload: {**payload, "meta": {name: change(value) for name, value in payload["meta"].items()}}


READERS = ("eval", "resume", "longer", "reproduce", "same")  # of run directories; -cp reads the config alone
TRAINERS = ("eval", "longer")  # of checkpoints
HOSTILE = {  # what is done to the directory of a finished run, and the verbs that have to refuse it
    "alias bomb": (lambda: _config(_bomb(9)), VERBS),
    "alias bomb in a setting": (lambda: _config("seed: &s 0\nobjective: *s\n", "seed: 0\n"), VERBS),
    "deep yaml": (lambda: _config("seed: " + "[" * 5000 + "]" * 5000 + "\n", "seed: 0\n"), VERBS),
    "wide yaml": (lambda: _config("seed: [" + "0," * 31000 + "]\n", "seed: 0\n"), VERBS),
    "huge yaml": (lambda: _replaced(".hydra/config.yaml", _sparse(10_000_000_000)), VERBS),
    "python tag": (lambda: _config("seed: !!python/object/apply:os.mkdir [owned]\n", "seed: 0\n"), VERBS),
    "python name": (lambda: _config("seed: !!python/name:os.mkdir\n", "seed: 0\n"), VERBS),
    "environment": (lambda: _config("seed: ${oc.env:HOME}\n", "seed: 0\n"), VERBS),
    "resolver": (lambda: _config("objective: '${oc.create:{_target_: os.mkdir, path: owned}}'\n", "objective: val\n"), VERBS),
    "target": (lambda: _config("_target_: os.mkdir", "_target_: metarun.algos.maml.MAML"), VERBS),
    "target of a function": (lambda: _config("_target_: metarun.files.write_atomically", "_target_: metarun.algos.maml.MAML"), VERBS),
    "nested target": (lambda: _config("_target_: builtins.exec", "_target_: torch.optim.Adam"), VERBS),
    "target behind a module": (lambda: _config("_target_: metarun.engine.device.subprocess.Popen", "_target_: torch.optim.Adam"), VERBS),
    "hydra in the config": (lambda: _config("hydra: {callbacks: {x: {_target_: os.mkdir, path: owned}}}\nseed: 0\n", "seed: 0\n"), VERBS),
    "defaults in the config": (lambda: _config("defaults: [evil]\nseed: 0\n", "seed: 0\n"), VERBS),
    "package line": (lambda: _config("# @package hydra.callbacks\nx: {_target_: os.mkdir, path: owned}\n"), VERBS),
    "a list": (lambda: _config("- seed\n"), VERBS),
    "keys that are not words": (lambda: _config("1: 2\n? [a, b]\n: 3\n"), VERBS),
    "not utf-8": (lambda: Path("run/.hydra/config.yaml").write_bytes(b"seed: \xff\xfe\n"), VERBS),
    "control characters": (lambda: _config('"\\e]0;owned\\a": 1\nseed: 0\n', "seed: 0\n"), VERBS),
    "config is a pipe": (lambda: _replaced(".hydra/config.yaml", os.mkfifo), VERBS),
    "config is a link": (lambda: _replaced(".hydra/config.yaml", _link("/etc/passwd")), VERBS),
    "config is endless": (lambda: _replaced(".hydra/config.yaml", _link("/dev/zero")), VERBS),
    "config is a folder": (lambda: _replaced(".hydra/config.yaml", Path.mkdir), VERBS),
    ".hydra is a link": (lambda: _replaced(".hydra", _link("elsewhere")), READERS),
    "metrics are a link": (lambda: _replaced("metrics.jsonl", _link("victim")), READERS),
    "timing is a link": (lambda: _replaced("timing.jsonl", _link("victim")), READERS),
    "log is a link": (lambda: _replaced("metarun.log", _link("victim")), READERS),
    "status is a link": (lambda: _replaced("status.json", _link("victim")), READERS),
    "checkpoints are a link": (lambda: _replaced("checkpoints", _link("elsewhere")), READERS),
    "evaluations are a link": (lambda: Path("run/eval").symlink_to(Path("elsewhere").resolve()), READERS),
    "timing is a pipe": (lambda: _replaced("timing.jsonl", os.mkfifo), ("longer",)),
    "status is a pipe": (lambda: _replaced("status.json", os.mkfifo), ("resume", "longer", "reproduce", "same")),
    "deep json": (lambda: Path("run/status.json").write_text("[" * 200_000), ("resume", "longer", "reproduce", "same")),
    "huge json": (lambda: _replaced("summary.json", _sparse(50_000_000_000)), ("resume", "reproduce", "same")),
    "summary of other shape": (lambda: _json("summary.json", lambda s: s.update(test=[])), ("resume", "reproduce", "same")),
    "summary with a huge number": (lambda: Path("run/summary.json").write_text('{"objective": ' + "9" * 4000 + "}"), ("resume", "reproduce", "same")),
    "summary with infinity": (lambda: _json("summary.json", lambda s: s.update(objective=float("inf"))), ("resume", "reproduce", "same")),
    "environment of other shape": (lambda: _json("environment.json", lambda e: e.update(versions="x")), ("reproduce",)),
    "sessions of other shape": (lambda: _json("environment.json", lambda e: e.update(continued=[{"changed": 3}])), ("reproduce",)),
    "another fingerprint": (lambda: _json("environment.json", lambda e: e.update(config="0")), READERS),
    "metrics of other shape": (lambda: Path("run/metrics.jsonl").write_text('{"step": 1}\n'), ("reproduce",)),
    "endless metrics": (lambda: _replaced("metrics.jsonl", _sparse(50_000_000_000)), ("reproduce",)),
    "a pickle": (lambda: _checkpoints(lambda payload: _Harmful()), TRAINERS),
    "a pickle within": (lambda: _checkpoints(_with("metrics", _Harmful())), TRAINERS),
    "an old pickle": (lambda: _contents(lambda _: b"\x80\x02cposix\nmkdir\nX\x05\x00\x00\x00owned\x85R."), TRAINERS),
    "a compressed checkpoint": (lambda: _contents(_compressed), TRAINERS),
    "noise": (lambda: _contents(lambda _: random.Random(0).randbytes(5000)), TRAINERS),
    "an empty checkpoint": (lambda: _contents(lambda _: b""), TRAINERS),
    "a tensor of a billion from one number": (lambda: _checkpoints(_meta(lambda v: torch.zeros(1).expand(10**9))), TRAINERS),
    "a sparse tensor": (lambda: _checkpoints(_meta(lambda v: torch.sparse_coo_tensor(size=(10**5, 10**5)))), TRAINERS),
    "a tensor nowhere": (lambda: _checkpoints(_meta(lambda v: torch.empty(v.shape, device="meta"))), TRAINERS),
    "other shapes": (lambda: _checkpoints(_meta(lambda v: v.flatten()[:1])), TRAINERS),
    "words for weights": (lambda: _checkpoints(_meta(str)), TRAINERS),
    "weights that are not finite": (lambda: _checkpoints(_meta(lambda v: v * float("nan"))), TRAINERS),
    "an optimiser of other shape": (lambda: _checkpoints(_with("optimizer", {"state": {}, "param_groups": []})), TRAINERS),
    "an optimiser that is not finite": (lambda: _checkpoints(lambda p: {**p, "optimizer": {**p["optimizer"], "x": float("inf")}}), TRAINERS),
    "chunks below one": (lambda: _checkpoints(_with("chunks", [0, -1])), TRAINERS),
    "metrics in the checkpoint that are none": (lambda: _checkpoints(_with("metrics", "rm -rf\n")), ("longer",)),
    "another split": (lambda: _checkpoints(_with("split_hash", "\x1b[2J")), TRAINERS),
    "a best step that is not there": (lambda: _checkpoints(_with("best", [3, 0.1])), TRAINERS),
    "manifests that are lists": (lambda: [p.write_text("[]") for p in Path("run/checkpoints").glob("*.json")], TRAINERS),
    "manifests that are deep": (lambda: [p.write_text("[" * 900) for p in Path("run/checkpoints").glob("*.json")], TRAINERS),
    "manifests that are huge": (lambda: [_sparse(10**11)(p) for p in Path("run/checkpoints").glob("*.json")], TRAINERS),
    "checkpoints that are huge": (lambda: [_sparse(10**11)(p) for p in Path("run/checkpoints").glob("*.pt")], TRAINERS),
    "checkpoints that are pipes": (lambda: [(p.unlink(), os.mkfifo(p)) for p in Path("run/checkpoints").glob("*.pt")], TRAINERS),
    "checkpoints that are links": (lambda: [(p.unlink(), p.symlink_to("/dev/zero")) for p in Path("run/checkpoints").glob("*.pt")], TRAINERS),
    "the checkpoints are a file": (lambda: _replaced("checkpoints", Path.touch), TRAINERS),
}  # fmt: skip


def _content(path):
    return path.read_bytes() if path.is_file() and path.stat().st_size < 10**6 else path.lstat().st_mode


def _tree():
    return {path: _content(path) for path in Path().rglob("*")}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_strangers_file_is_refused_in_a_line(metarun, finished, case):
    shutil.copytree(finished, "run")
    Path("victim").write_text("precious")
    Path("elsewhere").mkdir()
    spoil, verbs = HOSTILE[case]
    spoil()
    before = _tree()
    for name, words in VERBS.items():
        began = time.process_time()
        code, _, err = metarun(*words)
        assert time.process_time() - began < SECONDS + (name in ("longer", "reproduce", "-cp") and code == 0), name
        assert not Path("owned").exists()
        assert Path("victim").read_text() == "precious"
        assert not list(Path("elsewhere").iterdir())
        assert "Traceback" not in err
        assert "\x1b" not in err
        lines = [line for line in err.splitlines() if not line.startswith("reproducing")]
        if name in verbs:
            assert code in (2, 4), (name, err)
            warnings = [line for line in lines if line.endswith("going on with the one before it")]
            assert len(lines) - len(warnings) == 1, (name, err)
            assert lines[-1].startswith("metarun: error: ")
            assert _tree() == before, f"{name} changed something"
        else:
            assert code == 0 or lines[-1].startswith("metarun: error: "), (name, err)
            shutil.rmtree("run")
            shutil.rmtree("again", ignore_errors=True)
            shutil.rmtree("outputs", ignore_errors=True)
            shutil.copytree(finished, "run")
            spoil()


def test_what_is_shown_of_a_stranger_cannot_steer_a_terminal(metarun, finished):
    shutil.copytree(finished, "run")
    _json("summary.json", lambda s: s.update(title="\x1b]0;owned\x07\x1b[2J", settings={"\x9b31m": "\r\x08"}))
    code, out, err = metarun("resume", "run")
    assert code == 0
    assert not {"\x1b", "\x07", "\x9b", "\r", "\x08"} & set(out + err)


def test_a_checkpoint_that_lies_about_its_metrics_is_refused_before_anything_is_written(metarun, finished):
    shutil.copytree(finished, "run")
    row = '{"step": 2, "split": "val", "mse": "x", "ci95": 1, "tasks": 2, "by_step": [1]}\n'
    _checkpoints(_with("metrics", row))
    before = _tree()
    code, _, err = metarun(*VERBS["longer"])
    assert code == 4, err
    assert "line 1 is not an event" in err
    assert _tree() == before


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
    """An archive that has all of Omniglot's background names, each with this image."""
    from metarun.data.omniglot_archive import ALPHABETS

    return [
        (f"images_background/{alphabet}/character{c:02d}/{c:04d}_{n:02d}.png", image)
        for alphabet, (part, count, _) in ALPHABETS.items()
        if part == "images_background"
        for c in range(1, count + 1)
        for n in range(1, 21)
    ]


BACKGROUND = Path("data/omniglot-py/images_background.zip")
HOSTILE_DATA = {
    "names that lead out": lambda: BACKGROUND.write_bytes(_archive([("../../owned", b"x"), ("/owned", b"x")])),
    "a link": lambda: BACKGROUND.write_bytes(_archive([("images_background/x", b"/etc/passwd")])),
    "not a zip": lambda: BACKGROUND.write_bytes(b"PK" * 1000),
    "a huge archive": lambda: _sparse(10**11)(BACKGROUND),
    "images of another size": lambda: BACKGROUND.write_bytes(_archive(_every(_of_png(100_000, 100_000)))),
    "images that unpack without end": lambda: BACKGROUND.write_bytes(_archive(_every(bytes(100_000)))),
    "encrypted images": lambda: BACKGROUND.write_bytes(_encrypted(_archive(_every(b"x")))),
    "a pipe": lambda: os.mkfifo(BACKGROUND),
    "a device": lambda: BACKGROUND.symlink_to("/dev/zero"),
    "a cut archive": lambda: BACKGROUND.write_bytes(_archive(_every(b"x"))[:-30]),
}


@pytest.mark.parametrize("case", HOSTILE_DATA)
def test_strangers_data_is_refused_in_a_line(metarun, data_root, case):
    BACKGROUND.parent.mkdir(parents=True)
    (BACKGROUND.parent / "images_evaluation.zip").symlink_to(data_root / "omniglot-py" / "images_evaluation.zip")
    HOSTILE_DATA[case]()
    before = sorted(Path().rglob("*"))
    began = time.process_time()
    code, _, err = metarun("data=omniglot", "data.root=data", "data.download=false")
    assert time.process_time() - began < SECONDS
    assert code == 3
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not Path("owned").exists()
    assert [path for path in sorted(Path().rglob("*")) if path not in before and path.suffix != ".lock"] == []


HOSTILE_CHOICES = {
    "alias bomb": _bomb(9),
    "deep": "x: " + "[" * 5000 + "]" * 5000,
    "python tag": "x: !!python/object/apply:os.mkdir [owned]\n",
    "a callback": "# @package hydra.callbacks\nx:\n  _target_: os.mkdir\n  path: owned\n",
    "a launcher": "# @package hydra\nlauncher:\n  _target_: subprocess.Popen\n",
    "a log handler": "# @package hydra.job_logging\nversion: 1\nroot: {handlers: [x]}\nhandlers: {x: {class: logging.FileHandler, filename: owned}}\n",
    "a factory of log handlers": "# @package hydra.hydra_logging\nversion: 1\nroot: {handlers: [x]}\nhandlers: {x: {(): os.mkdir, path: owned}}\n",
    "a target": "_target_: os.mkdir\npath: owned\n",
}


@pytest.mark.parametrize("case", HOSTILE_CHOICES)
def test_a_strangers_choices_run_nothing(metarun, case):
    Path("theirs/algo").mkdir(parents=True)
    Path("theirs/algo/evil.yaml").write_text(HOSTILE_CHOICES[case])
    before = _tree()
    for words in (
        ["algo=evil"],
        ["+algo@x=evil", "algo=maml"],
        ["algo=evil", "-m", "seed=1,2"],
        ["algo=evil", "--cfg", "job"],
    ):
        began = time.process_time()
        code, _, err = metarun("-cd", "theirs", *words, *QUICK)
        assert time.process_time() - began < SECONDS
        assert code in (1, 2), (words, err)
        assert err.count("\n") == 1, err
        assert not Path("owned").exists()
        assert _tree() == before


def test_nothing_in_the_working_directory_is_imported(tmp_path):
    for name in ("torch", "hydra", "yaml", "json", "metarun_plugin", "hydra_plugins/evil"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("open('owned', 'w').close()\n")
    done = subprocess.run([sys.executable, "-m", "metarun", "algo=mamll"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "did you mean maml?" in done.stderr
    assert not (tmp_path / "owned").exists()
