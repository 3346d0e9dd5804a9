"""Saved configs are plain data: nothing in them is executed, followed, waited for or believed."""

import os
from pathlib import Path

import pytest
import yaml
from helpers.runs import ROOT
from omegaconf._utils import get_yaml_loader

from metarun.config import saved
from metarun.config.compose import compose
from metarun.config.saved import dump, read_words, saved_config
from metarun.config.schema import check
from metarun.config.targets import build
from metarun.errors import RunDirError, UsageError

GOOD = dump(compose([]).plain())


def _replace(old, new):
    assert old in GOOD
    return lambda path: path.write_text(GOOD.replace(old, new, 1))


def _write(content):
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def _sparse(path):
    with open(path, "wb") as file:
        file.truncate(10**10)


def _bomb():
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    return "\n".join([*lines, *(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9))]) + "\n"


BAD = {
    "an alias bomb": (_write(_bomb()), "an alias"),
    "an alias": (_replace("seed: 0\n", "seed: &s 0\nobjective: *s\n"), "an alias"),
    "deep": (_write("seed: " + "[" * 500 + "]" * 500), "deeper than 100 levels"),
    "deep within": (_replace("seed: 0\n", "seed: " + "[" * 100 + "]" * 100 + "\n"), "deeper than 100 levels"),
    "wide": (_replace("seed: 0\n", "seed: [" + "0," * 9000 + "]\n"), "an integer"),
    "huge": (_sparse, "over 10000000"),
    "a python tag": (_replace("seed: 0\n", "seed: !!python/object/apply:os.mkdir [owned]\n"), "a tag"),
    "a python name": (_replace("seed: 0\n", "seed: !!python/name:os.mkdir\n"), "a tag"),
    "a tag on a mapping": (_replace("algo:\n", "algo: !!map\n"), "a tag"),
    "the environment": (_replace("seed: 0\n", "seed: ${oc.env:HOME}\n"), "the interpolation"),
    "an interpolated key": (_replace("seed: 0\n", "${oc.env:HOME}: 0\n"), "the interpolation"),
    "a resolver": (
        _replace("objective: val", "objective: '${oc.create:{_target_: os.mkdir, path: owned}}'"),
        "the interpolation",
    ),
    "a call as a target": (_replace("metarun.algos.maml.MAML", "os.mkdir('owned')"), "expected the dotted name"),
    "a mapping as a target": (_replace("torch.optim.Adam", "{path: owned}"), "expected the dotted name"),
    "hydra": (
        _replace("seed: 0\n", "hydra: {callbacks: {x: {_target_: os.mkdir, path: owned}}}\nseed: 0\n"),
        "'hydra'",
    ),
    "defaults": (_replace("seed: 0\n", "defaults: [evil]\nseed: 0\n"), "'defaults'"),
    "a list": (_write("- seed\n"), "a mapping"),
    "a word": (_write("seed"), "a mapping"),
    "nothing": (_write(""), "a mapping"),
    "keys that are no words": (_write("1: 2\n? [a, b]\n: 3\n"), "plain values"),
    "a date for a key": (_write("2020-01-01: 1\n"), ""),
    "half a list": (_write("seed: [\n"), "plain values"),
    "two of a key": (_replace("seed: 0\n", "seed: 0\nseed: 1\n"), "duplicate key"),
    "no text": (_write(b"seed: \xff\xfe\n"), "plain values"),
    "control characters": (_replace("seed: 0\n", '"\\e]0;owned\\a": 1\nseed: 0\n'), ""),
    "null bytes": (_write("\x00\x01"), "plain values"),
    "a pipe": (os.mkfifo, "not a regular file"),
    "a link": (lambda path: path.symlink_to("/etc/passwd"), "a symbolic link"),
    "an endless file": (lambda path: path.symlink_to("/dev/zero"), "a symbolic link"),
    "a folder": (Path.mkdir, "plain values"),
    "not there": (lambda path: None, "not found"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_plain_config_is_refused_in_a_line(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    spoil, said = BAD[case]
    path = tmp_path / "config.yaml"
    spoil(path)
    with pytest.raises(RunDirError) as error:
        saved_config(path)
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)
    assert len(str(error.value)) < 600
    assert not (tmp_path / "owned").exists()


def test_what_was_saved_is_read_again(tmp_path):
    path = tmp_path / "config.yaml"
    for words in ([], ["algo.inner_lr=1e-12", "algo.meta_lr=1e20", "data.eval_shots=3"]):
        config = compose(words)
        path.write_text(dump(config.plain()))
        assert saved_config(path) == config
        assert saved_config(path).fingerprint == config.fingerprint


def test_a_class_that_nobody_trusts_is_a_word_until_it_is_built(tmp_path):
    """So that tables of the runs of others need no trust. Nothing that builds goes without check() or build()."""
    path = tmp_path / "config.yaml"
    for old, new in (("metarun.algos.maml.MAML", "os.mkdir"), ("torch.optim.Adam", "builtins.exec")):
        _replace(old, new)(path)
        config = saved_config(path)
        with pytest.raises(UsageError, match=f"'{new}' .*METARUN_TRUST"):
            check(config.plain())
        with pytest.raises(UsageError, match=f"'{new}' .*METARUN_TRUST"):
            build("algo", config.algo, model=None)


def test_published_configs_of_earlier_versions_are_read():
    """They have `published` and old names of classes, and the fingerprint that their checkpoints had."""
    import json

    folders = sorted((ROOT / "outputs/published").glob("*/*/*/*"))
    assert len(folders) > 10
    for folder in folders:
        config = saved_config(folder / ".hydra/config.yaml")
        assert config.fingerprint == json.loads((folder / "environment.json").read_text())["config"]


def test_words(tmp_path):
    path = tmp_path / "overrides.yaml"
    assert read_words(path) == []
    words = ["seed=1", "published={paper: 'X 2020', mean: 1}", "algo.x=${seed}", "data.root=a b"]
    path.write_text(dump(words))
    assert read_words(path) == words
    for content in ("a: 1\n", "[1, 2]", "- !!python/name:os.mkdir\n", "- &a x\n- *a\n", "[" * 500, b"\xff"):
        _write(content)(path)
        with pytest.raises(RunDirError, match="overrides"):
            read_words(path)


@pytest.mark.parametrize(
    "text",
    ["a: 1e-3\nb: .5\nc: 1_000\nd: 2020-01-01\ne: [yes, null, ~, 0x1f, 1:30]\nf: 'x'\ng: -.inf\n", "a: {b: 1.}\n"],
)
def test_values_are_those_of_hydras_own_loader(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    expected = yaml.load(text, Loader=get_yaml_loader())
    found = saved._read_plain(tmp_path / "x.yaml")
    assert repr(found) == repr(expected)


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 1\na: 2\n")
    with pytest.raises(RunDirError, match="duplicate key"):
        saved._read_plain(tmp_path / "x.yaml")


def test_what_changed_no_result_and_is_gone_is_left_out(tmp_path):
    """Of runs whose engine compiled by the inner step."""
    path = tmp_path / "config.yaml"
    config = compose(["engine=compile"])
    engine = {**config.engine, "compiled": "step", "checkpoint_inner": True}
    path.write_text(dump({**config.plain(), "engine": engine}))
    assert saved_config(path).engine == config.engine
