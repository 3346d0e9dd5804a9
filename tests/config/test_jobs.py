"""The jobs of a sweep: all combinations, also of what files bring, and keys that take their values together."""

from pathlib import Path

import pytest

from metarun.config.folders import OWN, ConfigFolders
from metarun.config.jobs import expand
from metarun.errors import UsageError

CHOICES = {
    "sweep/one.yaml": "hydra: {sweeper: {params: {seed: '0,1'}}}",
    "sweep/two.yaml": "hydra: {sweeper: {params: {algo.inner_lr: '0.1,0.2'}}}",
    "sweep/pairs.yaml": "zip: [algo.inner_lr, algo.meta_lr]\n"
    "hydra: {sweeper: {params: {algo.inner_lr: '0.1,0.2', algo.meta_lr: '1e-3,1e-4'}}}",
    "experiment/both.yaml": "hydra: {sweeper: {params: {sweep: 'one,two'}}}",
    "experiment/swept.yaml": "hydra: {sweeper: {params: {seed: '3,4'}}}",
    "experiment/elsewhere.yaml": "defaults: [{override /hydra/launcher: second}]",
    # A class that is trusted and everywhere, to differ from the default: the launchers of extras may be missing.
    "hydra/launcher/second.yaml": "hydra: {launcher: {_target_: hydra.experimental.callbacks.LogJobReturnCallback}}",
}


@pytest.fixture
def own(tmp_path):
    """Choices of the user's."""
    for name, text in CHOICES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# @package _global_\n{text}\n")
    return ConfigFolders(None, tmp_path)


def _jobs(words, folders):
    return sorted(" ".join(sorted(words)) for words in expand(words.split(), folders))


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        ("", [""]),
        ("sweep=one", ["seed=0 sweep=one", "seed=1 sweep=one"]),
        (
            "sweep=one,two",
            ["algo.inner_lr=0.1 sweep=two", "algo.inner_lr=0.2 sweep=two", "seed=0 sweep=one", "seed=1 sweep=one"],
        ),
        ("sweep=null,one", ["seed=0 sweep=one", "seed=1 sweep=one", "sweep=null"]),
        ("experiment=null,swept", ["experiment=null", "experiment=swept seed=3", "experiment=swept seed=4"]),
        ("sweep=one data=tabular,sequences data.ways=2", None),
        ("sweep=pairs", ["algo.inner_lr=0.1 algo.meta_lr=1e-3 sweep=pairs", "algo.inner_lr=0.2 algo.meta_lr=1e-4 sweep=pairs"]),
        ("data=tabular,sequences data.ways=2,3 zip=[data,data.ways]", ["data.ways=2 data=tabular", "data.ways=3 data=sequences"]),
        (
            "algo.inner_lr=1,2 seed=0,1 algo.meta_lr=3,4 zip=[[algo.inner_lr,algo.meta_lr]]",
            [f"algo.inner_lr={a} algo.meta_lr={b} seed={seed}" for a, b in ((1, 3), (2, 4)) for seed in (0, 1)],
        ),
        ("seed=1 experiment=glob(finn2017/*5w1s*)", ["experiment=finn2017/omniglot_5w1s seed=1", "experiment=finn2017/omniglot_5w1s_mlp seed=1"]),
    ],
)  # fmt: skip
def test_all_combinations_are_jobs(own, words, jobs):
    found = [job.replace("0.001", "1e-3").replace("0.0001", "1e-4") for job in _jobs(words, own)]
    if jobs is None:
        assert len(found) == 4
        assert all("data.ways=2" in job for job in found)
    else:
        assert found == jobs


def test_a_sweep_of_sweeps(own):
    assert len(_jobs("experiment=both", own)) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sweep=one seed=5", "'seed' .*given twice"),
        (
            "seed=1,2 algo.inner_lr=1 zip=[seed,algo.inner_lr]",
            "'algo.inner_lr' .zip.: expected a key with several values",
        ),
        ("seed=1,2 algo.inner_lr=1,2,3 zip=[seed,algo.inner_lr]", "seed has 2, algo.inner_lr has 3 values .zip."),
        ("seed=1,2 algo.inner_lr=1,2 zip=[seed,seed]", "'seed' .zip.: named twice"),
        ("seed=1,2 zip=seed", "'seed' .zip.: expected two keys or more, as in zip="),
        ("seed=1,2 algo.inner_lr=choice(1,2).shuffle zip=[seed]", "key=value"),
        ("seed=1,2 algo.inner_lr=shuffle(1,2) zip=[seed,algo.inner_lr]", "leave the shuffle out"),
        ("sweep=pairs zip=[algo.inner_lr,algo.meta_lr]", "expected a key with several values"),
    ],
)
def test_what_makes_no_jobs_is_refused(own, words, said):
    with pytest.raises(UsageError, match=said):
        expand(words.split(), own)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-m experiment=null,elsewhere", "hydra.launcher (sweep): not the same for all jobs"),
        ("experiment=swept", "seed (hydra.sweeper.params): a sweep has several runs; add -m"),
        ("seed=0,1 zip=[seed,meta_steps]", "a sweep has several runs; add -m"),
        ("-m seed=0,0", "seed=0 (sweep): twice the same run; give each value once"),
        ("-m seed=0,1 hydra.sweep.dir=a,b", "expected one value"),
        ("-m seed=0 hydra/launcher=basic,second", "expected one value"),
        (
            "-m algo=maml,anil hydra.sweep.dir=${hydra.runtime.choices.algo}",
            "maml and anil (hydra.sweep.dir): expected one",
        ),
        ("-m seed=0,1 hydra.sweep.subdir=x", "'x' (hydra.sweep.subdir): expected a name with something of each job"),
        ("-m algo={first_order:1},{first_order:0}", "1 (algo.first_order): expected true or false"),
        ("hydra.mode=MULTIRUN seed=0,1", "expected -m for a sweep"),
        ("-m sweep=one,two seed=5", "'seed' (command line): given twice"),
        ("-m experiment=swept,null algo.inner_lr=0.1,-1", "-1 (algo.inner_lr)"),
    ],
)
def test_a_sweep_is_checked_before_its_first_job(metarun, own, words, said):
    code, out, err = metarun("-cd", str(own.extra), *words.split())
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_choice_that_has_the_name_of_metaruns_own_is_not_passed_over(metarun):
    Path("mine/algo").mkdir(parents=True)
    Path("mine/algo/maml.yaml").write_text("inner_lr: 0.5")
    code, _, err = metarun("-cd", "mine", "algo=maml")
    assert code == 2
    assert "algo/maml.yaml (--config-dir): metarun has a choice of that name" in err
    Path("mine/algo/maml.yaml").rename("mine/algo/mine.yaml")
    Path("mine/algo/mine.yaml").write_text("# @package _global_\nseed: 5\n", encoding="utf-8-sig")  # as Notepad does
    code, _, err = metarun("-cd", "mine", "algo=mine")
    assert (code, err.count("\n")) == (2, 1)
    assert "algo/mine.yaml (--config-dir): begins with a byte-order mark" in err


def test_a_key_that_all_jobs_have_needs_no_default_that_has_it(metarun):
    quick = ("meta_steps=1", "val_every=1", "val_tasks=2", "test_tasks=2", "meta_batch=1", "algo=protonet")
    code, out, err = metarun("-m", "data=tabular,sequences", "data.ways=3", *quick)
    assert code == 0, err
    assert out.count("test accuracy") == 2


def test_files_vary_slowest():
    assert [job[:2] for job in expand(["seed=0,1", "algo=maml,anil"], OWN)] == [
        ["seed=0", "algo=maml"],
        ["seed=1", "algo=maml"],
        ["seed=0", "algo=anil"],
        ["seed=1", "algo=anil"],
    ]
