"""metarun adapt: a trained run answers about examples of the user's own, as its own test would."""

import csv
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from helpers.own_data import write_own_data
from helpers.tables import cities
from PIL import Image, ImageOps
from sklearn.metrics import mean_squared_error, r2_score

from metarun.data.inputs import encode
from metarun.run.build import prepare_experiment
from metarun.run.loading import load_trained, save_trained
from metarun.storage.rundir import RunDir

SHORT = ("meta_steps=2", "meta_batch=2", "val_every=1", "val_tasks=2", "test_tasks=3", "device=cpu")
IMAGES = ("data=omniglot", "data.rotations=none", "data.ways=3", "data.shots=2", "data.queries=2", "model.filters=4")


def _rows(folder):
    with Path(folder, "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def _write_task(source, task, root):
    """Writes the drawings of a test task as they are in the archives, in folders whose names have the classes' order."""
    files = {}
    for part in ("images_background", "images_evaluation"):
        archive = zipfile.ZipFile(root / "omniglot-py" / f"{part}.zip")
        for name in archive.namelist():
            files.setdefault("/".join(name.split("/")[1:3]), []).append((archive, name))
    classes = source.clusters(0, "test", torch.tensor([0]))[0].tolist()
    for part, x, y in (("support", task.support_x, task.support_y), ("query", task.query_x, task.query_y)):
        for n, (pixels, label) in enumerate(zip(x, y.tolist(), strict=True)):
            name = list(source.packed)[classes[label]]
            first = source.packed.starts()[classes[label]]
            drawings = torch.from_numpy(source.packed.examples[first : first + 20]).float() / 255
            (place,) = (drawings == pixels).flatten(1).all(dim=1).nonzero()[0].tolist()
            archive, member = files[name][place]
            folder = Path(part, f"{label} {name.replace('/', ' ')}")
            folder.mkdir(parents=True, exist_ok=True)
            Path(folder, f"{n:02d}.png").write_bytes(archive.read(member))


SLOW = [pytest.param(algo, marks=pytest.mark.slow) for algo in ("lstm_generator", "meta_lstm")]


@pytest.mark.parametrize("algo", ["maml", "protonet", *SLOW])
def test_a_test_task_in_files_is_answered_as_in_the_runs_own_test(metarun, data_root, algo):
    code, _, err = metarun(*SHORT, *IMAGES, f"algo={algo}", "hydra.run.dir=run")
    assert code == 0, err
    config, trained = RunDir(Path("run")).config(), load_trained("run")
    experiment = prepare_experiment(config, ("test",))
    source, algorithm = experiment.source, experiment.algorithm
    task = source.sample(config.seed, "test", torch.tensor([0])).select(0)
    expected = torch.softmax(algorithm.predictions(trained.meta, task)[-1], dim=-1).detach().numpy()
    _write_task(source, task, data_root)
    code, out, err = metarun("adapt", "run", "support=support", "query=query", "together=true", "out=answers")
    assert code == 0, err
    rows = _rows("answers")
    found = [[np.float32(row[name]) for name in row if name.startswith("p(")] for row in rows]
    assert np.array_equal(np.array(found), expected), "to the last bit"
    right = (expected.argmax(axis=1) == task.query_y.numpy()).mean()
    mean, ci95 = map(float, re.search(r"accuracy (\S+) ± (\S+) %", out).groups())
    assert abs(mean - 100 * right) <= 0.06 * ci95, "rounded to two digits of the interval"
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert out.count("batch norm") == (algorithm.model.norm == "transductive")
    assert sorted(path.name for path in Path("answers").iterdir()) == ["adapt.html", "predictions.csv"]
    if algo == "maml":  # with an output for each of three classes
        shutil.rmtree(sorted(Path("support").iterdir())[0])
        code, _, err = metarun("adapt", "run", "support=support", "query=support", "out=two")
        assert code == 0, err
        assert "is the same image as" in err
        for row in _rows("two"):
            assert sum(float(row[name]) for name in row if name.startswith("p(")) == pytest.approx(1)


@pytest.fixture
def waves(finished):
    """A finished run on sinusoids, and points of a wave."""
    shutil.copytree(finished, "run")
    x = np.linspace(-4, 4, 9)
    frame = pandas.DataFrame({"x": x, "y": 2 * np.sin(x)})
    frame[::2].to_csv("points.csv", index=False)
    frame[1::2].to_csv("judged.csv", index=False)
    frame[["x"]].to_csv("grid.csv", index=False)


def _files():
    return sorted(path for path in Path().rglob("*") if path.is_file())


def test_a_run_an_exported_file_and_an_adapted_one_answer_alike(metarun, waves):
    code, out, err = metarun("adapt", "run", "support=points.csv", "query=judged.csv")
    assert code == 0, err
    (folder,) = Path("run/adapt").glob("*/*")
    first = folder.joinpath("predictions.csv").read_bytes()
    assert str(folder / "adapt.html") in out
    save_trained(load_trained("run"), Path("run.safetensors"))
    words = ("adapt", "run.safetensors", "support=points.csv", "query=judged.csv", "save=wave.safetensors")
    code, out, err = metarun(*words)
    assert code == 0, err
    (folder,) = Path("adapted").glob("*/*")
    assert folder.joinpath("predictions.csv").read_bytes() == first
    for _ in range(2):  # the second time in place of the first
        code, out, err = metarun("adapt", "wave.safetensors", "query=judged.csv", "out=new", "--format", "json")
        assert code == 0, err
        assert Path("new/predictions.csv").read_bytes() == first
    found = json.loads(out)
    rows = _rows("new")
    truth, taken = ([float(row[name]) for row in rows] for name in ("truth", "prediction"))
    assert [answer["prediction"] for answer in found["answers"]] == pytest.approx(taken)
    assert found["judged"]["mean"] == pytest.approx(mean_squared_error(truth, taken))
    assert found["judged"]["r2"] == pytest.approx(r2_score(truth, taken))
    assert (found["support"], found["metric"], found["together"]) == (5, "mse", False)
    code, out, err = metarun("adapt", "wave.safetensors", "query=grid.csv", "out=asked", "inner_steps=3")
    assert code == 0, err
    assert "mse" not in out, "no truth is known"
    assert "after 3 inner steps" in out
    assert set(_rows("asked")[0]) == {"row", "prediction"}


def test_the_source_is_not_needed_and_own_code_needs_trust(metarun, waves):
    trained = load_trained("run")
    for section, target in (("data", "gone.Source"), ("algo", "mine.Algorithm")):
        config = dict(trained.facts.config) | {section: {**trained.facts.config[section], "_target_": target}}
        facts = trained.facts.model_copy(update={"config": config})
        save_trained(type(trained)(trained.path, facts, trained.config, trained.meta), Path(f"{section}.safetensors"))
    words = ("support=points.csv", "query=grid.csv", "out=answers")
    assert metarun("adapt", "data.safetensors", *words)[0] == 0
    shutil.rmtree("answers")
    code, _, err = metarun("adapt", "algo.safetensors", *words)
    assert code == 2
    assert "METARUN_TRUST" in err
    assert not Path("answers").exists()


def test_a_table_is_answered_in_its_own_units(metarun):
    frame = cities()
    frame.to_csv("cities.csv", index=False)
    words = (
        "data=table",
        "data.file=cities.csv",
        "data.task=city",
        "data.target=wage",
        "data.drop=[name]",
        "data.shots=3",
        "data.queries=3",
    )
    code, _, err = metarun(*SHORT, *words, "model.hidden=[8]", "hydra.run.dir=run")
    assert code == 0, err
    new = frame[frame.city == "city 1"]
    new[:5].to_csv("few.csv", index=False)
    new[5:].to_csv("rest.csv", index=False)
    code, out, err = metarun("adapt", "run", "support=few.csv", "query=rest.csv", "out=answers")
    assert code == 0, err
    truth, taken = (np.array([float(row[name]) for row in _rows("answers")]) for name in ("truth", "prediction"))
    assert truth == pytest.approx(new.wage[5:].to_numpy())
    trained = load_trained("run")
    mean, sd = (trained.facts.inputs["target"][name] for name in ("mean", "sd"))
    x, y = encode(trained.facts.inputs, new), np.float32((new.wage[:5].to_numpy() - mean) / sd)
    outputs = trained.build(None).answer(x[:5], y[:, None], x[5:])[-1, :, 0].double().numpy()
    assert taken == pytest.approx(outputs * sd + mean)
    said = re.search(r"mse (\S+) ± (\S+), R² (\S+)", out)
    assert float(said[1]) == pytest.approx(mean_squared_error(truth, taken), abs=0.06 * float(said[2]))
    assert float(said[3]) == pytest.approx(r2_score(truth, taken), abs=1e-3)
    assert "tasks" not in err
    assert "same row" not in err
    frame[frame.city.isin(["city 1", "city 2"])].to_csv("mixed.csv", index=False)
    _, _, err = metarun("adapt", "run", "support=mixed.csv", "query=rest.csv", "out=answers")
    assert "mixed.csv (support): rows of 2 tasks (city city 1, city 2): expected those of one" in err
    _, _, err = metarun("adapt", "run", "support=few.csv", "query=few.csv", "out=answers")
    assert "row 1 (query) is the same row as row 1 (support) (and 4 more): it is no test of what was learned" in err
    Path("answers/predictions.csv").rename("answers/.predictions.csv.tmp")  # as a command leaves it that is killed
    assert metarun("adapt", "run", "support=few.csv", "query=few.csv", "out=answers")[0] == 0


SUPPORT = ("support=points.csv", "query=grid.csv")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "suport=points.csv", "query=grid.csv"], 2, "did you mean support?"),
        (["run", "points.csv"], 2, "expected support=, query="),
        (["run", "support=points.csv"], 2, "query= (command line): is missing"),
        (["run", "query=grid.csv"], 2, "support= (command line): is missing"),
        (["run", *SUPPORT, "support=grid.csv"], 2, "twice"),
        (["run", *SUPPORT, "query=points.csv"], 2, "one table"),
        (["run", *SUPPORT, "inner_steps=-1"], 2, "'-1' (inner_steps)"),
        (["run", *SUPPORT, "together=yes"], 2, "true or false"),
        (["run", "support=nowhere.csv", "query=grid.csv"], 3, "nowhere.csv (support): No such file"),
        (["run", "support=points.csv", "query=nowhere.csv"], 3, "nowhere.csv (query): No such file"),
        (["run", "support=grid.csv", "query=grid.csv"], 2, "'y' (support): no such column"),
        (["run", "support=points.csv", "query=run/status.json"], 3, "(query)"),
        (["run", *SUPPORT, "out=run"], 4, "run (out): holds other files"),
        (["run", *SUPPORT, "out=grid.csv"], 4, "grid.csv (out): is a file"),
        (["run", *SUPPORT, "save=grid.csv"], 2, "ends in .safetensors"),
        (["run", *SUPPORT, "save=grid.csv/a.safetensors"], 4, "grid.csv is a file"),
        (["nowhere", *SUPPORT], 4, "nowhere: expected a run directory"),
        (["points.csv", *SUPPORT], 4, "points.csv: not an exported learner"),
        (["stopped", *SUPPORT], 4, "not finished"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line_and_nothing_is_written(metarun, waves, words, code, said):
    if words[0] == "stopped":
        Path("run").rename("stopped")
        status = Path("stopped/status.json")
        status.write_text(status.read_text().replace("done", "stopped"))
    before = _files()
    found, out, err = metarun("adapt", *words)
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1
    assert _files() == before


def test_a_damaged_file_is_refused(metarun, waves):
    save_trained(load_trained("run"), Path("whole.safetensors"))
    content = Path("whole.safetensors").read_bytes()
    flipped = bytearray(content)
    flipped[-9] ^= 4
    newer = content.replace(b'\\"version\\": 1', b'\\"version\\": 9')
    for spoiled, said in ((bytes(flipped), "damaged"), (content[:-8], "damaged"), (newer, "of version 9")):
        Path("spoiled.safetensors").write_bytes(spoiled)
        code, _, err = metarun("adapt", "spoiled.safetensors", *SUPPORT)
        assert code == 4
        assert said in err
    assert not Path("adapted").exists()


def test_images_that_are_bright_on_dark_already_are_not_inverted(metarun, data_root):
    assert metarun(*SHORT, *IMAGES, "algo=protonet", "hydra.run.dir=run")[0] == 0
    write_own_data(Path())
    for folder in ("support", "query"):
        for path in Path(folder).rglob("*.png"):
            negative = Path(f"{folder} bright", *path.parts[1:])
            negative.parent.mkdir(parents=True, exist_ok=True)
            ImageOps.invert(Image.open(path)).save(negative)
    code, out, err = metarun("adapt", "run", "support=support", "query=query", "out=dark")
    assert code == 0, err
    assert "images: inverted as in training" in out
    code, out, err = metarun(
        "adapt", "run", "support=support bright", "query=query bright", "invert=false", "out=bright"
    )
    assert code == 0, err
    assert "inverted" not in out
    assert [row["p(letter 0)"] for row in _rows("bright")] == [row["p(letter 0)"] for row in _rows("dark")]
    assert metarun("adapt", "run", "support=support", "query=query", "invert=perhaps")[0] == 2
