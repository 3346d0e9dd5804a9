"""metarun table: rows, both kinds of intervals, paired differences, verdicts, and what is left out."""

import csv
import io
import json
import math
import random
import shutil
import statistics
from pathlib import Path

import pytest
import yaml
from helpers.runs import QUICK

from metarun.results import compare, runs, table


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _edit(folder, name, change):
    """Changes a JSON or YAML file of a run, as if another run had written it."""
    path = Path(folder) / name
    parse, write = (json.loads, json.dumps) if name.endswith(".json") else (yaml.safe_load, yaml.safe_dump)
    content = parse(path.read_text())
    change(content)
    path.write_text(write(content))


def _run(original, folder, each, *, seed=0, digest="", **settings):
    """A run with these metrics of its test tasks."""
    shutil.copytree(original, folder)
    mean = statistics.fmean(each)
    point = {"mean": mean, "ci95": 1.96 * statistics.stdev(each) / math.sqrt(len(each))}

    def summarize(summary):
        summary["test"]["mse"] = {**point, "tasks": len(each), "by_step": [point] * 3}

    def configure(config):
        config["seed"] = seed
        for key, value in settings.items():
            if key in config:
                config[key] = value
            else:
                config["algo"][key] = value

    _edit(folder, "summary.json", summarize)
    tasks = {"metric": "mse", "digest": digest or f"tasks of seed {seed}", "inner_steps": 2, "each": each}
    (Path(folder) / "test_tasks.json").write_text(json.dumps(tasks))
    _edit(folder, ".hydra/config.yaml", configure)
    (Path(folder) / "environment.json").unlink()
    return folder


def _rows(*folders):
    found, left_out = runs.collect(map(str, folders))
    assert not left_out
    return compare.rows_of(found)[0]


def test_students_t_is_that_of_the_tables():
    for freedom, value in {1: 12.706, 2: 4.303, 10: 2.228, 11: 2.201, 15: 2.131, 30: 2.042, 100: 1.984}.items():
        assert compare.student(freedom) == pytest.approx(value, abs=6e-4)


def test_the_interval_over_seeds_covers_95_percent():
    draws = random.Random(0)
    for seeds in (2, 3, 5):
        hits = 0
        for _ in range(4000):
            means = [draws.gauss(1.0, 0.3) for _ in range(seeds)]
            hits += abs(statistics.fmean(means) - 1.0) <= compare.over_seeds(means)
        assert hits / 4000 == pytest.approx(0.95, abs=0.012)


def test_seeds_are_averaged_and_their_tasks_and_their_spread_kept_apart(tmp_path, finished):
    each = {0: [1.0, 2.0, 3.0], 1: [2.0, 4.0, 6.0]}
    folders = [_run(finished, tmp_path / f"{seed}", some, seed=seed) for seed, some in each.items()]
    (row,) = _rows(*folders)
    assert row.mean == pytest.approx(3.0)  # of 2 and 4
    widths = [1.96 * s / math.sqrt(3) for s in (1.0, 2.0)]
    assert row.ci95_tasks == pytest.approx(math.hypot(*widths) / 2)
    assert row.ci95_seeds == pytest.approx(12.706 * math.sqrt(2) / math.sqrt(2))
    assert [run.config.seed for run in row.runs] == [0, 1]


def test_rows_on_the_same_tasks_are_compared_task_by_task(tmp_path, finished):
    a = _run(finished, tmp_path / "a", [1.0, 2.0, 3.0, 10.0])
    b = _run(finished, tmp_path / "b", [1.5, 2.4, 3.6, 10.5], inner_lr=0.5)
    other = _run(finished, tmp_path / "c", [0.1, 0.2, 0.3, 0.4], digest="others", inner_lr=0.7)
    rows = {row.keys["algo.inner_lr"]: row for row in _rows(a, b, other)}
    assert rows[0.01].best is True
    mean, interval = rows[0.5].difference
    assert mean == pytest.approx(0.5)
    assert interval == pytest.approx(1.96 * statistics.stdev([0.5, 0.4, 0.6, 0.5]) / 2)
    assert interval < rows[0.5].ci95_tasks / 10, "that is what pairing is for"
    assert rows[0.7].difference is None, "it was tested on other tasks"
    assert rows[0.7].best is None


@pytest.mark.parametrize(
    ("mean", "ci95", "theirs", "expected"),
    [
        (0.985, 0.002, 0.004, ("inside", -0.002, True)),
        (0.9831, 0.002, 0.004, ("inside", -0.0039, True)),
        (0.982, 0.002, 0.004, ("below", -0.005, True)),
        (0.97, 0.002, 0.004, ("below", -0.017, False)),
        (0.999, 0.002, 0.004, ("above", 0.012, False)),
        (0.985, 0.003, None, ("inside", -0.002, True)),
        (0.983, 0.003, None, ("below", -0.004, False)),
    ],
)
def test_verdicts(mean, ci95, theirs, expected):
    found = compare.verdict(mean, ci95, {"mean": 0.987, "ci95": theirs})
    assert (found.where, pytest.approx(found.away), found.meet) == expected


def test_the_table_of_published_experiments(metarun, tmp_path, finished):
    published = {"paper": "Somebody 2020, table 1", "mean": 2.5, "ci95": None, "by_step": {0: 9.0, 1: 2.6}}
    for name, each in {"one": [1.0, 2.0, 4.0], "two": [2.0, 3.0, 7.0]}.items():
        _run(finished, tmp_path / name, each, published=published, inner_lr=len(name) + each[0])
        (tmp_path / name / ".hydra/overrides.yaml").write_text(f"- experiment=x/{name}\n- seed=0\n")
    code, out, err = metarun("table", "one", "two")
    assert code == 0, err
    header, _, first, second = out.splitlines()[:4]
    assert header.startswith("| experiment | mse | ± tasks | tasks | seeds | after 0 | after 1 | published | verdict |")
    assert first.startswith("| x/one | 2.333 |")
    assert "(9) |" in first
    assert "| 2.5 | inside | best | Somebody 2020, table 1 |" in first
    assert "| +1.667 ±" in second
    code, out, _ = metarun("table", ".", "format=json")
    rows = json.loads(out)["rows"]
    assert [row["keys"] for row in rows] == [{"experiment": "x/one"}, {"experiment": "x/two"}]
    assert rows[1]["difference_to_best"] == pytest.approx(5 / 3)
    code, out, _ = metarun("table", ".", "format=csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [float(line["mean"]) for line in lines] == pytest.approx([7 / 3, 4.0])
    assert lines[0]["published"] == "2.5"
    assert lines[0]["ci95_seeds"] == ""


def test_columns_are_the_keys_that_differ(metarun):
    assert metarun("-m", *QUICK, "algo.inner_lr=0.01,0.02", "seed=0,1", "hydra.sweep.dir=sweep")[0] == 0
    assert metarun(*QUICK, "algo=reptile", "hydra.run.dir=other/reptile")[0] == 0
    assert metarun(*QUICK, "device.threads=1", "checkpoint_every=3", "hydra.run.dir=other/again")[0] == 0
    code, out, err = metarun("table", "sweep", "other", "format=json")
    assert code == 0, err
    table = json.loads(out)
    assert [(row["keys"], row["seeds"]) for row in table["rows"]] == [
        ({"algo": "MAML", "algo.inner_lr": 0.01}, [0, 1]),
        ({"algo": "MAML", "algo.inner_lr": 0.02}, [0, 1]),
        ({"algo": "Reptile", "algo.inner_lr": 0.001}, [0]),
    ]
    (again,) = table["left_out"]
    assert "same configuration and seed" in again["reason"]
    assert table["rows"][0]["runs"][0].startswith("sweep")


def test_what_cannot_be_used_is_named_and_stops_nothing(metarun, finished):
    for name in ("good", "torn", "val", "huge", "running", "no tasks", "other tasks", "config"):
        shutil.copytree(finished, name)
    Path("torn/summary.json").write_text("{")
    _edit("val", "summary.json", lambda s: s.update(val=3))
    _edit("huge", "summary.json", lambda s: s["test"]["mse"].update(mean=1e999))
    Path("running/summary.json").unlink()
    _edit("running", "status.json", lambda s: s.update(status="failed", step=3, error="the loss is not finite"))
    Path("no tasks/test_tasks.json").unlink()
    _edit("no tasks", ".hydra/config.yaml", lambda c: c.update(seed=7))
    Path("no tasks/environment.json").unlink()
    _edit("other tasks", "test_tasks.json", lambda t: t["each"].reverse() or t["each"].pop())
    Path("config/.hydra/config.yaml").write_text("!!python/object/apply:os.system [echo]\n")
    code, out, err = metarun("table", ".")
    assert code == 0, err
    table, _, rest = out.partition("Left out:")
    assert table.count("\n| ") == 1, "one configuration"
    assert "| 2 |" in table, "two seeds: a run without test_tasks.json has a mean all the same"
    for name, reason in {
        "torn": "cannot be read", "val": "not a summary", "huge": "summary.json", "running": "failed at outer step 3: the loss is not finite",
        "other tasks": "does not belong", "config": "an alias or a tag",
    }.items():  # fmt: skip
        assert any(line.startswith(f"- {name}: ") and reason in line for line in rest.splitlines()), name
    code, out, err = metarun("table", "torn", "running")
    assert code == 4
    assert "no result" in err
    assert "the loss is not finite" in out


def test_evaluations_are_rows_of_their_own(metarun, finished):
    shutil.copytree(finished, "run")
    for shots in (3, 5):
        assert metarun("eval", "run", f"data.shots={shots}")[0] == 0
    code, out, err = metarun("table", "run/eval", "run", "format=json")
    assert code == 0, err
    assert [row["keys"] for row in json.loads(out)["rows"]] == [
        {"data.shots": 3},
        {"data.shots": 5},
        {"data.shots": 10},
    ]


@pytest.mark.parametrize(
    ("words", "code", "names"),
    [
        (["table"], 2, ["metarun table DIR"]),
        (["table", "nowhere"], 2, ["'nowhere'", "folder with runs"]),
        (["table", "run", "format=xml"], 2, ["'xml'", "markdown, csv, json"]),
        (["table", "run", "style=csv"], 2, ["'style=csv'", "format=markdown"]),
        (["table", "empty"], 2, ["'empty'", "there are none"]),
        (["table", "run", "x" * 300], 2, ["folder that can be read"]),
        (["table", "run", ""], 2, ["''", "expected a folder with runs"]),
        (["table", "run", "format=csv", "format=json"], 2, ["'format'", "given twice", "format=csv and format=json"]),
        (["report", "run", "out="], 2, ["'out='", "out=FILE.html"]),
    ],
)
def test_bad_words(metarun, finished, words, code, names):
    shutil.copytree(finished, "run")
    Path("empty").mkdir()
    found, _, err = metarun(*words)
    assert found == code, err
    assert len(err.splitlines()) == 1
    assert all(name in err for name in names), err


def test_a_config_of_before_there_was_a_budget_is_read(metarun, finished):
    shutil.copytree(finished, "run")
    _edit("run", ".hydra/config.yaml", lambda c: [c.pop(key) for key in ("budget", "published", "logger")])
    code, out, err = metarun("table", "run", "format=json")
    assert code == 0, err
    assert json.loads(out)["rows"][0]["budget"] == 1.0
    assert metarun("reproduce", "run")[0] == 0


def test_one_is_one_however_it_is_typed(metarun):
    assert metarun(*QUICK, "budget=1", "algo.meta_lr=1", "hydra.run.dir=runs/a")[0] == 0
    assert metarun(*QUICK, "algo.meta_lr=1.0", "seed=1", "hydra.run.dir=runs/b")[0] == 0
    (row,) = json.loads(metarun("table", "runs", "format=json")[1])["rows"]
    assert row["seeds"] == [0, 1]
    assert metarun("resume", "runs/a", "meta_steps=8", "budget=0.75")[0] == 0, "after budget=1, which is a number too"


def test_what_is_left_of_a_run_is_named(metarun, finished):
    shutil.copytree(finished, "runs/whole")
    shutil.copytree(finished, "runs/bare")
    shutil.rmtree("runs/bare/.hydra")
    code, out, err = metarun("table", "runs")
    assert code == 0, err
    assert "- runs/bare: " in out
    assert "config.yaml: not found" in out


def test_keys_are_those_that_differ_among_what_is_compared(metarun, data_root, monkeypatch):
    """Sinusoids and Omniglot differ in everything, but are in tables of their own."""
    monkeypatch.setenv("METARUN_DATA", str(data_root))
    quick = ("meta_steps=1", "val_tasks=2", "test_tasks=2", "model.filters=4")
    for rate in (0.1, 0.2):
        assert metarun("data=omniglot", *quick, f"algo.inner_lr={rate}", f"hydra.run.dir=runs/{rate}")[0] == 0
    assert metarun(*QUICK, "hydra.run.dir=runs/waves")[0] == 0
    rows = json.loads(metarun("table", "runs", "format=json")[1])["rows"]
    assert [row["keys"] for row in rows] == [{"algo.inner_lr": 0.1}, {"algo.inner_lr": 0.2}, {}]


def test_the_result_of_before_an_extension_is_not_that_of_the_extension(metarun, finished):
    """A run that is to be longer, and was killed on the way, has a summary of when it was shorter."""
    shutil.copytree(finished, "run")
    _edit("run", ".hydra/config.yaml", lambda c: c.update(meta_steps=400))
    code, out, err = metarun("table", "run")
    assert code == 4, err
    assert "- run: was finished after 4 outer steps, and is to go on to 400" in out
    assert metarun("eval", "run")[0] == 0
    title = json.loads(next(Path("run/eval").glob("*/*/summary.json")).read_text())["title"]
    assert "4 of 400 outer steps" in title


def test_a_changed_experiment_is_not_judged_by_the_paper(metarun, tmp_path, finished):
    published = {"paper": "Somebody 2020, table 1", "mean": 2.5, "ci95": 0.1}
    words = {"same": ["budget=0.5", "device=cpu"], "other": ["budget=0.5", "algo.inner_lr=0.3", "algo.meta_lr=0.1"]}
    for name, more in words.items():
        rate = 0.3 if name == "other" else 0.01
        _run(finished, tmp_path / name, [1.0, 2.0, 4.0], published=published, budget=0.5, inner_lr=rate)
        _edit(name, ".hydra/config.yaml", lambda c: c.update(meta_steps=8))
        Path(name, ".hydra/overrides.yaml").write_text(yaml.safe_dump(["experiment=x/one", *more]))
    other, same = json.loads(metarun("table", "other", "same", "format=json")[1])["rows"]
    assert same["verdict"] == "below"
    assert same["keys"] == {"experiment": "x/one", "budget": 0.5, "algo.inner_lr": 0.01}
    assert other["published"] is other["verdict"] is None
    assert other["keys"] == {"experiment": "x/one", "budget": 0.5, "algo.inner_lr": 0.3, "changed": "algo.meta_lr=0.1"}
    alone = json.loads(metarun("table", "other", "format=json")[1])["rows"][0]
    assert alone["keys"]["changed"] == "algo.inner_lr=0.3 algo.meta_lr=0.1", "also where there is nothing to compare"
    assert metarun("eval", "same", "data.shots=3")[0] == 0
    (row,) = json.loads(metarun("table", "same/eval", "format=json")[1])["rows"]
    assert row["published"] is None
    assert row["keys"] == {"experiment": "x/one", "budget": 0.5, "eval": "data.shots=3"}


def test_the_seed_of_an_evaluation_is_not_that_of_the_model(metarun):
    for seed in (0, 1):
        assert metarun(*QUICK, f"seed={seed}", f"hydra.run.dir=runs/{seed}")[0] == 0
        for other in (7, 8):
            assert metarun("eval", f"runs/{seed}", f"seed={other}")[0] == 0
    assert metarun("eval", "runs/0")[0] == 0
    rows = json.loads(metarun("table", "runs", "runs/0/eval", "runs/1/eval", "format=json")[1])["rows"]
    assert [row["keys"] for row in rows] == [{}, {"eval": "seed=7"}, {"eval": "seed=8"}, {"eval": "again"}]
    assert [len(row["runs"]) for row in rows] == [2, 2, 2, 1], "models, on the same tasks"
    (one,) = json.loads(metarun("table", *map(str, Path("runs/0/eval").glob("*/*")), "format=json")[1])["rows"][:1]
    assert one["ci95_seeds"] is None, "there is one model"


def test_differences_of_several_seeds_have_the_interval_over_their_tasks(tmp_path, finished):
    """One model far from the other is no uncertainty over tasks."""
    for seed, gap in ((0, 0.0), (1, 5.0)):
        base = [1.0, 2.0, 3.0, 10.0]
        _run(finished, tmp_path / f"a{seed}", base, seed=seed)
        _run(
            finished,
            tmp_path / f"b{seed}",
            [v + gap + d for v, d in zip(base, (0.1, 0.2, 0.3, 0.4), strict=True)],
            seed=seed,
            inner_lr=0.5,
        )
    rows = {row.keys["algo.inner_lr"]: row for row in _rows(*sorted(tmp_path.iterdir()))}
    mean, interval = rows[0.5].difference
    assert mean == pytest.approx(2.75)
    assert interval == pytest.approx(1.96 * statistics.stdev([0.1, 0.2, 0.3, 0.4]) / 2 * math.sqrt(2) / 2)


def test_an_interval_that_is_not_that_of_the_tasks_is_noticed(metarun, tmp_path, finished):
    _run(finished, tmp_path / "run", [1.0, 2.0, 4.0])
    _edit("run", "summary.json", lambda s: s["test"]["mse"].update(ci95=0.01))
    code, out, _ = metarun("table", "run")
    assert code == 4
    assert "does not belong to summary.json" in out


def test_a_setting_that_came_later_and_is_null_makes_no_other_configuration(tmp_path, finished):
    new = _run(finished, tmp_path / "new", [1.0, 2.0, 4.0])
    old = _run(finished, tmp_path / "old", [1.0, 2.0, 3.0], seed=1)
    _edit(old, ".hydra/config.yaml", lambda c: c["algo"].pop("meta_clip"))
    (row,) = _rows(new, old)
    assert [run.config.seed for run in row.runs] == [0, 1]


@pytest.mark.parametrize(
    ("words", "judged"),
    [
        (["experiment=x/one"], True),
        (["experiment=x/one", "engine=compile", "test_tasks=10"], True),
        (["experiment=x/one", "engine.autocast=bfloat16"], False),
        (["experiment=x/one", "device.tf32=true"], False),
        (["seed=1"], False),  # a saved config run again with -cp, which may have been another than the experiment's
        ([], False),  # a reproduction of one, or an evaluation whose run is gone
        (["algo=maml", "algo.inner_lr=3", "published={paper: 'X 2020', mean: 2.5}"], True),
    ],
)
def test_what_is_judged_by_a_paper(finished, words, judged):
    _run(finished, "run", [1.0, 2.0, 4.0], published={"paper": "Somebody 2020, table 1", "mean": 2.5})
    Path("run/.hydra/overrides.yaml").write_text(yaml.safe_dump(words))
    (row,) = _rows("run")
    assert (row.published is not None, row.verdict is not None) == (judged, judged)


def test_an_evaluation_under_the_same_settings_is_judged(metarun, finished):
    published = {"paper": "Somebody 2020, table 1", "mean": 2.5}
    _run(finished, "run", [1.0, 2.0, 4.0], published=published)
    Path("run/.hydra/overrides.yaml").write_text("- experiment=x/one\n")
    for words in (["test_tasks=20"], ["data.shots=3"]):
        assert metarun("eval", "run", *words)[0] == 0
    assert [row.published is not None for row in _rows("run/eval")] == [True, False]
    shutil.copytree(next(Path("run/eval").glob("*/*")), "kept/alone")
    assert [row.published for row in _rows("kept")] == [None], "nobody knows what it was trained on"


def test_rounding_is_a_setting_and_the_place_is_none(finished):
    for name, (section, key, value) in {
        "float32": ("device", "tf32", False), "bfloat16": ("engine", "autocast", "bfloat16"),
        "tf32": ("device", "tf32", True), "compiled": ("engine", "mode", "compile"),
    }.items():  # fmt: skip
        _run(finished, f"runs/{name}", [1.0, 2.0, 4.0])
        _edit(f"runs/{name}", ".hydra/config.yaml", lambda c, s=section, k=key, v=value: c[s].update({k: v}))
    found, _ = runs.collect(["runs"])
    rows, again = compare.rows_of(found)
    kept = ("engine.autocast", "device.tf32")
    keys = [[row.keys.get(key) or False for key in kept] for row in rows]
    assert sorted(keys, key=str) == [["bfloat16", False], [False, False], [False, True]]
    assert [one.path for one in again] == ["runs/float32"], "the same as compiled, which comes first"


def test_runs_of_one_experiment_with_other_configs_say_in_what_they_differ(finished):
    for seed, reduction in ((0, "mean"), (1, "per_shot")):
        _run(finished, f"runs/{seed}", [1.0, 2.0], seed=seed, inner_loss_reduction=reduction)
        Path(f"runs/{seed}/.hydra/overrides.yaml").write_text("- experiment=x/one\n")
    assert [row.keys for row in _rows("runs")] == [
        {"experiment": "x/one", "algo.inner_loss_reduction": name} for name in ("mean", "per_shot")
    ]


def test_models_tested_on_the_same_tasks_are_no_more_tasks(finished):
    """Two models that are alike know no more about tasks than one; two on tasks of their own do, by √2."""
    each = [1.0, 2.0, 4.0, 9.0]
    _run(finished, "one", each)
    for seed in (0, 1):
        _run(finished, f"same/{seed}", each, seed=seed, digest="the same")
        _run(finished, f"own/{seed}", each, seed=seed)
    (one,), (same,), (own,) = (_rows(name) for name in ("one", "same", "own"))
    assert same.ci95_tasks == pytest.approx(one.ci95_tasks)
    assert own.ci95_tasks == pytest.approx(one.ci95_tasks / math.sqrt(2))


def test_the_best_is_best_where_all_were_tested(finished):
    """The first row has a bad second seed, which the other row does not have to compare with."""
    _run(finished, "a/0", [1.0, 2.0, 3.0])
    _run(finished, "a/1", [9.0, 10.0, 11.0], seed=1)
    _run(finished, "b/0", [3.0, 2.0, 4.0], inner_lr=0.5)
    first, second = _rows("a", "b")
    assert first.mean > second.mean
    assert (first.best, second.best) == (True, False)
    assert second.difference[0] == pytest.approx(1.0)
    _run(finished, "c/0", [3.0, 2.0], inner_lr=0.6, digest="tasks of seed 0")
    assert _rows("a", "b", "c")[2].best is None, "fewer tasks of the same name are others"


@pytest.mark.parametrize(
    ("mean", "ci95", "expected"),
    [
        (0.987, 0.004, "98.7 ± 0.4 %"),
        (0.9768, 0.0004, "97.68 ± 0.04 %"),
        (0.9953, 0.0026, "99.53 ± 0.26 %"),
        (0.8814, 0.0015, "88.14 ± 0.15 %"),
        (0.999, 0.001, "99.9 ± 0.1 %"),
        (0.96, None, "96.0 %"),
        (0.9765, None, "97.65 %"),
    ],
)
def test_what_is_published_is_shown_as_it_is_published(finished, mean, ci95, expected):
    _run(finished, "run", [0.5, 1.0], published={"paper": "X 2020", "mean": mean, "ci95": ci95})
    Path("run/.hydra/overrides.yaml").write_text("- experiment=x/one\n")
    test = json.loads(Path("run/summary.json").read_text())["test"]["mse"]
    _edit("run", "summary.json", lambda s: s.update(metric="accuracy", test={"accuracy": test}) or s.pop("val"))
    assert table.columns(_rows("run"))["published"] == [expected]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("summary.json", lambda s: s.update(algorithm=["MAML"])),
        ("summary.json", lambda s: s.update(parameters="many")),
        ("summary.json", lambda s: s.update(wall_seconds=1e999)),
        ("summary.json", lambda s: s.update(meta_steps="4")),
        ("summary.json", lambda s: s["test"]["mse"].update(tasks=20.0)),
        (".hydra/config.yaml", lambda c: c["model"].update(hidden=[{1: 2, "a": 3}])),
        ("test_tasks.json", lambda t: t.update(each=t["each"][:-1])),
    ],
)
@pytest.mark.parametrize("verb", ["table", "report"])
def test_one_damaged_run_stops_nothing(metarun, finished, verb, name, change):
    for folder in ("good", "bad"):
        shutil.copytree(finished, f"runs/{folder}")
    _edit("runs/bad", name, change)
    code, out, err = metarun(verb, "runs")
    assert code == 0, err
    text = out if verb == "table" else Path("report.html").read_text()
    assert "runs/bad" in text
    assert "same configuration" not in text


def test_deep_folders_and_ones_that_cannot_be_read_stop_nothing(metarun, finished, monkeypatch):
    shutil.copytree(finished, "runs/run")
    deep = Path("runs", *["d"] * 1100)
    for folder in reversed([deep, *deep.parents]):
        folder.mkdir(exist_ok=True)
    Path("runs/shut").mkdir()
    whole = Path.iterdir

    def iterdir(path):
        if path.name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)  # root may read all
    code, out, err = metarun("table", "runs")
    assert code == 0, err
    assert any(line.startswith("- runs/shut: ") for line in out.splitlines()), out
    code, _, err = metarun("table", "runs/shut")
    assert code == 2
    assert "Permission denied" in err
    for folder in (deep, *deep.parents[:1099]):
        folder.rmdir()  # pytest's own removal is not made for this depth


def test_what_is_published_is_typed_as_a_whole(metarun):
    """Hydra would leave the experiment's errors after five and ten steps beside it."""
    words = ("experiment=finn2017/sinusoid_5shot", "budget=0.00003", "val_tasks=2", "test_tasks=2")
    said = "published={paper: 'Mine 2020', mean: 5, by_step: {1: 4}}"
    assert metarun(*words, said, "hydra.run.dir=run")[0] == 0
    assert metarun("-m", *words, said, "seed=3", "hydra.sweep.dir=sweep")[0] == 0
    assert metarun(*words, "published=null", "hydra.run.dir=none")[0] == 0
    assert metarun(*words, "published.mean=5")[0] == 2
    for folder in ("run", "sweep"):
        (row,) = _rows(folder)
        assert row.published == {"paper": "Mine 2020", "mean": 5, "by_step": {1: 4}}
        assert list(row.by_step) == [1]
    assert [row.published is None for row in _rows("run", "none")] == [False, True], "rows of their own"


@pytest.mark.parametrize(
    "said", ["paper: X, mean: 1, ci95: -0.1", "paper: X, mean: 1, ci95: 0", "paper: ' ', mean: 1", "paper: X, mean: x",
             "paper: X, mean: 1, by_step: {a: 1}", "paper: X"],
)  # fmt: skip
def test_what_cannot_be_published_is_refused(metarun, said):
    code, _, err = metarun(*QUICK, f"published={{{said}}}")
    assert code == 2
    assert "(published): expected null, or {paper: words" in err


def test_how_a_run_went_on_is_no_change_of_its_evaluation(metarun, finished):
    shutil.copytree(finished, "run")
    assert metarun("eval", "run", "data.shots=5")[0] == 0
    assert metarun("resume", "run", "meta_steps=6", "engine=loop")[0] == 0
    (row,) = _rows("run/eval")
    assert row.keys == {"eval": "data.shots=5"}
    code, _, err = metarun("eval", "run", "engine.autocast=bfloat16")
    assert code == 2
    assert "no effect on meta-testing" in err
    code, _, err = metarun("resume", "run", "published={paper: X, mean: 1}")
    assert code == 0
    assert "is finished: published" in err
    assert "stays as it was" in err
