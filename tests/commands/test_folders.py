"""Folders of runs: their names, and the runs that a repeated sweep finds."""

from pathlib import Path

import pytest
from helpers.runs import QUICK

from metarun.commands.folders import as_typed, choose_folders, name_folder, shared_keys
from metarun.config.compose import compose
from metarun.config.overrides import parse
from metarun.errors import UsageError
from metarun.storage.rundir import RunDir


@pytest.mark.parametrize(
    "words", ["seed=1", "algo=maml,seed=1", "experiment=finn2017/omniglot_5w1s,seed=0", "a" * 255, "x=ü", ""]
)
def test_a_folder_keeps_the_name_that_it_always_had(words):
    assert name_folder(words) == words


@pytest.mark.parametrize(
    "words",
    [
        "a" * 256,
        "ü" * 128,
        "/x",
        "a=x/../../y",
        "a=x//y",
        "..",
        "a=\n",
        "a=\x00",
        "a=x/",
        "a=" + "x/" + "y" * 300,
        "a=\x1b[2J",
    ],
)
def test_a_folder_has_a_legal_name_of_its_own(words, tmp_path):
    name = name_folder(words)
    assert name == name_folder(words), "the same sweep finds it again"
    assert "/" not in name
    assert name.isprintable()
    (tmp_path / name).mkdir()
    assert name != name_folder(f"{words}x") != name_folder(f"x{words}")
    assert name.startswith(words[:1] if words[0].isprintable() and words[0] != "/" else "_")


def test_many_long_combinations_have_a_folder_each():
    assert len({name_folder("x" * 300 + str(number)) for number in range(10_000)}) == 10_000


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *(
            (name, name)
            for name in ("9e12345", "1E5", "007", "1_000", "true", "0", "false", "1.50", "2026-11-25", "nan")
        ),
        ("'null'", "null"),
        ("a b", "a b"),
        ("'a,b'", "a,b"),
        ("[1,2]", "[1,2]"),
        ("~/x", "/home/x"),
        ("${seed}", "${seed}"),
    ],
)
def test_a_folder_is_named_as_typed(value, name, monkeypatch):
    monkeypatch.setenv("HOME", "/home")
    assert [override.value() for override in parse(as_typed(["seed=1", f"hydra.run.dir={value}"])).parsed] == [1, name]


@pytest.mark.parametrize("word", ["hydra.run.dir=", "hydra.sweep.dir=null", "hydra.sweep.subdir=''"])
def test_a_folder_without_a_name_is_refused(word):
    with pytest.raises(UsageError, match="expected a folder"):
        as_typed([word])


def _place(folder, *jobs):
    """Chooses the folders of these jobs, and begins a run in each."""
    configs = [compose(list(words)) for words in jobs]
    names = choose_folders(folder, [list(words) for words in jobs], configs)
    for words, config, name in zip(jobs, configs, names, strict=True):
        rundir = RunDir(folder / name)
        rundir.path.mkdir(parents=True, exist_ok=True)
        rundir.begin(config, list(words), {})
    return names


def test_a_folder_is_named_by_what_the_jobs_do_not_share(tmp_path):
    long = tuple(f"{key}={value}" for key, value in compose([]).plain().items() if type(value) is int and key != "seed")
    assert _place(tmp_path, ("seed=0", *long), ("seed=1", *long)) == ["seed=0", "seed=1"]
    assert _place(tmp_path / "one", ("seed=0", "algo=anil")) == ["algo=anil,seed=0"]
    assert _place(tmp_path / "none", ()) == ["0"]


def test_a_sweep_finds_the_runs_that_are_there(tmp_path):
    """Also with more seeds, with other words in common, and by names of earlier versions, which had all words."""
    assert _place(tmp_path, ("algo=maml", "seed=0"), ("algo=anil", "seed=0")) == ["algo=maml", "algo=anil"]
    more = [(f"algo={algo}", f"seed={seed}") for algo in ("maml", "anil") for seed in (0, 1)]
    assert _place(tmp_path, *more) == ["algo=maml", "algo=maml,seed=1", "algo=anil", "algo=anil,seed=1"]
    assert _place(tmp_path, *reversed(more)) == ["algo=anil,seed=1", "algo=anil", "algo=maml,seed=1", "algo=maml"]
    assert _place(tmp_path, ("seed=1",), ("seed=7",)) == ["algo=maml,seed=1", "seed=7"]
    old = tmp_path / "old"
    RunDir(old / "algo=maml,meta_steps=9,seed=0").path.mkdir(parents=True)
    RunDir(old / "algo=maml,meta_steps=9,seed=0").begin(compose(["meta_steps=9"]), [], {})
    assert _place(old, ("meta_steps=9", "seed=0"), ("meta_steps=9", "seed=1")) == [
        "algo=maml,meta_steps=9,seed=0",
        "seed=1",
    ]


def test_a_run_of_another_config_keeps_its_folder(tmp_path):
    """Also one that may go on with the new config: who asks for 9 outer steps does not want the result of 5."""
    assert _place(tmp_path, ("seed=0", "meta_steps=5"), ("seed=1", "meta_steps=5")) == ["seed=0", "seed=1"]
    assert _place(tmp_path, ("seed=0", "meta_steps=9"), ("seed=2", "meta_steps=9")) == ["meta_steps=9,seed=0", "seed=2"]


def test_jobs_that_differ_in_places_only_have_a_folder_each(tmp_path):
    jobs = [("logger=null",), ("logger=tensorboard",)]
    for _ in range(2):
        assert _place(tmp_path, *jobs) == ["logger=null", "logger=tensorboard"]
    jobs = [("data=omniglot", "data.root=/a"), ("data=omniglot", "data.root=/b")]
    assert len(set(_place(tmp_path, *jobs))) == 2


def test_no_run_lies_in_the_folder_of_another(tmp_path):
    jobs = [("data=omniglot", "data.root=a"), ("data=omniglot", "data.root=a/b"), ("data=omniglot", "data.root=c/d")]
    for order in (jobs, jobs[::-1]):
        names = _place(tmp_path, *order)
        inside = names[order.index(jobs[1])]
        assert inside.startswith("data.root=a_b-")
        assert {*names} - {inside} == {"data.root=a", "data.root=c/d"}


def test_the_folders_of_a_search_are_named_by_what_it_searches_unless_others_are_there(tmp_path):
    searched, fixed = ["algo.inner_lr"], ["meta_steps=9", "seed=0"]
    short = ["data.root", "data.file", "meta_steps", "seed"]
    assert shared_keys(tmp_path, searched, fixed) == short
    for name, steps, keys in (("algo.inner_lr=1.0", 9, short), ("algo.inner_lr=2.0", 8, short[:2])):
        words = ["algo.inner_lr=" + name[-3:], f"meta_steps={steps}", "seed=0"]
        (tmp_path / name).mkdir()
        RunDir(tmp_path / name).begin(compose(words), words, {})
        assert shared_keys(tmp_path, searched, fixed) == keys


def test_a_relative_root_is_kept_absolute(metarun, monkeypatch, data_root):
    monkeypatch.chdir(data_root.parent)
    assert compose(["data=omniglot", "data.root=small"]).data["root"] == str(data_root)
    assert compose(["data=omniglot"]).data["root"] is None
    monkeypatch.setenv("HOME", "/home")
    assert compose([*as_typed(["data.root=~/x"]), "data=omniglot"]).data["root"] == "/home/x"


def test_a_run_in_a_folder_that_looks_like_a_number_goes_on_from_elsewhere(metarun, monkeypatch, data_root):
    """Its data.root was typed relative to where it began."""
    Path("data").symlink_to(data_root)
    words = (
        "data=omniglot",
        "data.root=data",
        "data.ways=2",
        "model.filters=4",
        "algo=protonet",
        "meta_batch=2",
        *QUICK[:4],
    )
    code, _, err = metarun(*words, "hydra.run.dir=9e12345")
    assert code == 0, err
    Path("other").mkdir()
    monkeypatch.chdir("other")
    code, _, err = metarun("resume", "../9e12345", "meta_steps=6")
    assert code == 0, err
