"""Finding and reading runs: facts of each, and what cannot be used, named with its reason."""

import json
import shutil
import statistics
from pathlib import Path

import pytest
import yaml
from helpers.results import copy_run, edit

from metarun.errors import RunDirError, UsageError
from metarun.results.compare import compare_runs
from metarun.results.runs import collect, find_runs, read_run

EXPERIMENT = "experiment=finn2017/sinusoid_5shot"


def test_runs_are_found_in_order_and_evaluations_where_they_are_named(finished):
    for name in ("b/run", "a", "c.d/e"):
        shutil.copytree(finished, Path("runs", name))
    shutil.copytree(finished / ".hydra", "runs/a/eval/2026/one")
    Path("runs/a/eval/2026/one/environment.json").write_text("{}")
    Path("runs/.hidden").mkdir()
    shutil.copytree(finished, "runs/.hidden/run")
    Path("runs/link").symlink_to("a")
    assert list(find_runs(Path("runs"))) == [Path("runs", name) for name in ("a", "b/run", "c.d/e")]
    assert list(find_runs(Path("runs/a/eval"))) == [Path("runs/a/eval/2026/one")]
    assert len(collect(["runs", "runs/a", "runs"])[0]) == 3, "each once"


@pytest.mark.parametrize("name", ["nowhere", "empty", "file", "x" * 300])
def test_a_folder_without_runs_is_refused(name):
    Path("empty").mkdir()
    Path("file").write_text("")
    with pytest.raises(UsageError, match="expected a folder with runs"):
        collect([name])


def test_deep_folders_and_ones_that_cannot_be_read_stop_nothing(finished, monkeypatch):
    shutil.copytree(finished, "runs/run")
    Path("runs", *["d"] * 300).mkdir(parents=True)
    Path("runs/shut").mkdir()
    whole = Path.iterdir

    def iterdir(path):
        if path.name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)  # root may read all
    runs, left_out = collect(["runs"])
    assert len(runs) == 1
    assert [folder.path for folder in left_out] == ["runs/shut"]


def _remove_summary(folder):
    (folder / "summary.json").unlink()


def _fail(folder):
    _remove_summary(folder)
    edit(folder, "status.json", lambda s: s.update(status="failed", step=3, error="the loss is not finite"))


def _extend(folder):
    """As if the run was to be longer, and was killed on the way."""
    edit(folder, ".hydra/config.yaml", lambda c: c.update(meta_steps=400))


SPOILED = {
    "torn": (lambda f: (f / "summary.json").write_text("{"), "summary.json: cannot be read"),
    "huge": (lambda f: edit(f, "summary.json", lambda s: s["test"]["mse"].update(mean=1e999)), "summary.json: cannot be read"),
    "words": (lambda f: edit(f, "summary.json", lambda s: s.update(algorithm=["MAML"])), "algorithm"),
    "running": (_remove_summary, "no result yet"),
    "failed": (_fail, "failed at outer step 3: the loss is not finite"),
    "longer": (_extend, "was finished after 4 outer steps, and is to go on to 400"),
    "fewer tasks": (lambda f: edit(f, "test_tasks.json", lambda t: t["each"].pop()), "does not belong to summary.json"),
    "mean": (lambda f: edit(f, "summary.json", lambda s: s["test"]["mse"].update(mean=0.5)), "does not belong"),
    "huge mean": (lambda f: edit(f, "summary.json", lambda s: s["test"]["mse"].update(mean=1e308)), "can be compared"),
    "huge tasks": (lambda f: edit(f, "test_tasks.json", lambda t: t["each"].insert(0, -t["each"].pop() - 1e308)), "not belong"),
    "interval": (lambda f: edit(f, "summary.json", lambda s: s["test"]["mse"].update(ci95=0.01)), "does not belong"),
    "no config": (lambda f: shutil.rmtree(f / ".hydra"), "config.yaml"),
    "tag": (lambda f: (f / ".hydra/config.yaml").write_text("!!python/object/apply:os.system [echo]\n"), "tag"),
    "changed": (lambda f: edit(f, ".hydra/config.yaml", lambda c: c["algo"].update(meta_clip=3)), "was changed"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_what_cannot_be_used_is_left_out_with_its_reason(finished, name):
    spoil, why = SPOILED[name]
    for folder in ("good", name):
        shutil.copytree(finished, Path("runs", folder))
    spoil(Path("runs", name))
    runs, left_out = collect(["runs"])
    assert [run.rundir.path.name for run in runs] == ["good"]
    assert [folder.path for folder in left_out] == [f"runs/{name}"]
    assert why in left_out[0].reason
    assert "\n" not in left_out[0].reason


def test_a_run_of_an_earlier_version_keeps_the_interval_that_it_recorded(finished):
    shutil.copytree(finished, "run")
    each = json.loads(Path("run/test_tasks.json").read_text())["each"]
    former = 1.96 * statistics.stdev(each) / len(each) ** 0.5
    edit("run", "summary.json", lambda s: s["test"]["mse"].update(ci95=former))
    with pytest.raises(RunDirError, match="does not belong"):
        read_run(Path("run"))
    edit("run", "test_tasks.json", lambda t: t.pop("queries"))
    assert read_run(Path("run")).summary.test.ci95 == former


def test_a_run_whose_tasks_share_tables_is_read_with_the_interval_over_tables(finished):
    shutil.copytree(finished, "run")
    each = json.loads(Path("run/test_tasks.json").read_text())["each"]
    each, members = sorted(each), [[number // 2] for number in range(len(each))]
    means = [statistics.fmean(pair) for pair in zip(each[::2], each[1::2], strict=True)]
    ci95 = 4.30265 * statistics.stdev(means) / 3**0.5
    edit("run", "test_tasks.json", lambda t: t.update(clusters=members, each=each))
    edit("run", "summary.json", lambda s: s["test"]["mse"].update(ci95=ci95))
    assert read_run(Path("run")).clusters.number == 3
    for spoiled in (None, members[1:], [*members, [3]], [[number] for number in range(len(each))]):
        edit("run", "test_tasks.json", lambda t, found=spoiled: t.update(clusters=found))
        with pytest.raises(RunDirError, match="does not belong"):
            read_run(Path("run"))


def test_a_run_without_test_tasks_has_a_result_but_no_digest(finished):
    shutil.copytree(finished, "run")
    Path("run/test_tasks.json").unlink()
    run = read_run(Path("run"))
    assert (run.each, run.digest) == ([], None)
    assert run.summary.test.mean == read_run(finished).summary.test.mean


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        ([EXPERIMENT, "seed=3", "budget=0.5", "device=cpu", "engine=loop", "test_tasks=9", "hydra.run.dir=x"], {}),
        ([EXPERIMENT, "sweep=optuna", "hydra/launcher=joblib", "data.root=/x", "val_every=3"], {}),
        ([EXPERIMENT, "algo.inner_lr=3"], {"algo.inner_lr": "algo.inner_lr=3"}),
        ([EXPERIMENT, "+algo.meta_clip=3"], {"algo.meta_clip": "+algo.meta_clip=3"}),
        ([EXPERIMENT, "engine.autocast=bfloat16"], {"engine.autocast": "engine.autocast=bfloat16"}),
        ([EXPERIMENT, "device.tf32=true"], {"device.tf32": "device.tf32=true"}),
        ([EXPERIMENT, "meta_batch=3"], {"meta_batch": "meta_batch=3"}),
    ],
)
def test_an_experiment_is_judged_as_long_as_it_is_the_published_one(finished, words, typed):
    run = read_run(copy_run(finished, Path("run"), [1.0, 2.0], words=words))
    assert run.experiment == "finn2017/sinusoid_5shot"
    assert run.typed == typed
    assert (run.published is None) == bool(typed)


@pytest.mark.parametrize("words", [["seed=1"], [], ["experiment=x/unknown"]])
def test_what_is_no_known_experiment_is_not_judged(finished, words):
    assert read_run(copy_run(finished, Path("run"), [1.0, 2.0], words=words)).published is None


def test_a_setting_that_was_changed_on_resume_is_one_that_was_typed(finished):
    copy_run(finished, "run", [1.0, 2.0], words=[EXPERIMENT])
    for changed, typed in ((["device.threads", "budget"], {}), (["meta_steps"], {"meta_steps": "meta_steps=4"})):
        edit("run", "environment.json", lambda e, c=changed: e.update(continued=[{"after_step": 2, "changed": c}]))
        assert read_run(Path("run")).typed == typed


def _evaluate(run, **changes):
    """A folder as `metarun eval` makes it."""
    folder = Path(run, "eval/2026-01-01/00-00-00")
    folder.mkdir(parents=True)
    for name in ("summary.json", "test_tasks.json", "environment.json"):
        shutil.copy(Path(run, name), folder / name)
    config = yaml.safe_load(Path(run, ".hydra/config.yaml").read_text())
    for key, value in changes.items():
        section, _, last = key.partition("__")
        (config[section] if last else config)[last or section] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize(
    ("changes", "expected", "judged"),
    [
        ({}, {}, True),
        ({"test_tasks": 20}, {"test_tasks": 20}, True),
        ({"data__shots": 3}, {"data.shots": 3}, False),
        ({"data__eval_shots": 10}, {}, True),
        ({"seed": 7}, {"seed": 7}, False),
        ({"device__threads": 1, "engine__mode": "loop", "meta_steps": 9}, {}, True),
    ],
)
def test_an_evaluation_has_the_settings_that_it_changed(finished, changes, expected, judged):
    copy_run(finished, "run", [1.0, 2.0], words=[EXPERIMENT])
    run = read_run(_evaluate("run", **changes))
    assert run.evaluation
    assert run.changes == expected
    assert (run.published is not None) == judged


def test_an_evaluation_of_a_checkpoint_that_was_the_best_is_no_row(finished):
    """It has not the validation of the one that is the best since its run went on."""
    copy_run(finished, "run", [1.0, 2.0])
    folder = _evaluate("run", data__shots=3)
    assert [len(part) for part in compare_runs([read_run(folder)])] == [1, 0]
    edit("run", "summary.json", lambda s: s["checkpoint"].update(step=s["checkpoint"]["step"] + 2))
    rows, (left,) = compare_runs([read_run(Path("run")), read_run(folder)])
    assert [row.runs[0].evaluation for row in rows] == [False]
    assert left.reason.endswith("another best checkpoint: expected a test of that; metarun eval makes it")
    again = shutil.copytree(folder, folder.with_name("00-00-01"))
    edit(again, "summary.json", lambda s: s["checkpoint"].update(step=s["checkpoint"]["step"] + 2))
    rows, (left,) = compare_runs([read_run(Path("run")), read_run(folder), read_run(again)])
    assert len(rows) == 2
    assert left.reason.endswith("00-00-01 tests that")
    _extend(Path("run"))
    edit(again, "config.yaml", lambda config: config.update(meta_steps=400))
    rows, (left,) = compare_runs([read_run(folder), read_run(again)])
    assert left.reason.endswith("00-00-01 tests that"), "of a run that is to go on once more, too"


def test_an_evaluation_of_a_run_that_is_gone_is_refused(finished):
    shutil.copytree(finished, "run")
    shutil.copytree(_evaluate("run"), "kept/alone")
    with pytest.raises(RunDirError, match="of a run that is gone"):
        read_run(Path("kept/alone"))


def test_a_run_of_an_earlier_version_is_read(finished):
    """Its summary has words instead of facts, its config no budget, and no choices were kept."""
    copy_run(finished, "run", [1.0, 2.0], words=[EXPERIMENT])
    for key in ("choices", "source", "learner", "inner", "training", "checkpoint"):
        edit("run", "summary.json", lambda s, k=key: s.pop(k))
    edit(
        "run",
        "summary.json",
        lambda s: s.update(title="MAML on x, 4 outer steps", settings={"learner": "MLP"}, meta_steps=4),
    )
    edit(
        "run", ".hydra/config.yaml", lambda c: [c.pop(key) for key in ("budget", "logger")] and c.update(published=None)
    )
    Path("run/.hydra/choices.yaml").unlink()
    run = read_run(Path("run"))
    assert (run.config.budget, run.experiment) == (1.0, "finn2017/sinusoid_5shot")
    assert run.published


def test_names_that_are_not_text_stay_in_their_line(finished):
    shutil.copytree(finished, b"two\nlines".decode())
    Path("two\nlines/summary.json").write_text(json.dumps({}))
    (folder,) = collect(["."])[1]
    assert folder.path == "two lines"
