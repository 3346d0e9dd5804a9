"""Tasks from tables: the rows that share a value, and N-way tasks; training is blind to what is not for training."""

import json
import logging

import numpy as np
import pandas
import pytest
import torch
from helpers.oracles import sample_again
from helpers.runs import QUICK
from helpers.tables import cities
from sklearn.preprocessing import StandardScaler

from metarun.data.splitting import split_names
from metarun.data.table import Table
from metarun.errors import DataError, SettingError, UsageError
from metarun.tasks import SPLITS

CPU = torch.device("cpu")
HALVES = [0.5, 0.25, 0.25]  # six, three and three of the twelve cities
REGRESSION = {"target": "wage", "task": "city", "drop": ["name", "job"], "splits": HALVES, "shots": 3, "queries": 5}


@pytest.fixture
def table(tmp_path):
    """Makes a source from a frame, by default that of the cities."""

    def make(frame=None, prepared=True, name="table.csv", **settings):
        frame = cities() if frame is None else frame
        frame.to_csv(tmp_path / name, index=False)
        source = Table(str(tmp_path / name), **settings)
        if prepared:
            source.prepare(CPU)
        return source

    return make


def _splits(frame=None, column="city"):
    frame = cities() if frame is None else frame
    return split_names(frame[column].unique(), HALVES, 0)


def _parts(task):
    return (task.support_x, task.support_y), (task.query_x, task.query_y)


@pytest.mark.parametrize("settings", [REGRESSION, {"target": "job", "task": "city", "splits": HALVES, "shots": 1}, {"target": "city", "ways": 3, "splits": HALVES}])  # fmt: skip
def test_a_task_is_a_function_of_seed_split_and_number(table, settings):
    source = table(**{"queries": 1, **settings})
    whole, others = sample_again(source)
    assert not any(torch.equal(other.support_x, whole.support_x) for other in others)
    assert source.clusters(0, "train", torch.arange(9))[[4, 7]].equal(source.clusters(0, "train", torch.tensor([4, 7])))


def test_a_task_has_distinct_rows_of_a_city_of_its_split_as_the_file_has_them(table):
    frame, source = cities(), table(**REGRESSION)
    training = frame["city"].isin(_splits()["train"])
    scalers = [StandardScaler().fit(frame.loc[training, [name]]) for name in ("age", "wage")]
    x, y = (scaler.transform(frame[[name]])[:, 0] for scaler, name in zip(scalers, ("age", "wage"), strict=True))
    assert (source.input_shape, source.outputs, source.metric) == ((1,), 1, "mse")
    for split in SPLITS:
        tasks = source.sample(0, split, torch.arange(60))
        cities_seen = set()
        for t in range(60):
            found = []
            for part_x, part_y in _parts(tasks.select(t)):
                assert part_y.shape == (len(part_x), 1)
                for point, target in zip(part_x[:, 0].numpy(), part_y[:, 0].numpy(), strict=True):
                    row = int(np.argmin(np.abs(x - point)))
                    assert point == pytest.approx(x[row], abs=1e-5)
                    assert target == pytest.approx(y[row], abs=1e-5)
                    found.append(row)
            assert len(set(found)) == 8
            assert len(tasks.support_x[t]) == 3
            (city,) = set(frame["city"][found])
            cities_seen.add(city)
        assert cities_seen == set(_splits()[split])


def test_clusters_are_the_cities_of_the_tasks(table):
    source = table(**REGRESSION)
    clusters = source.clusters(0, "test", torch.arange(50))
    assert clusters.shape == (50, 1)
    tasks = source.sample(0, "test", torch.arange(50))
    ages = {}
    for city, x in zip(clusters[:, 0].tolist(), tasks.support_x, strict=True):
        ages.setdefault(city, set()).update(x.flatten().tolist())
    assert len(ages) == 3
    assert not set.intersection(*ages.values())


def test_nothing_of_validation_and_test_shows_in_training(table):
    """Their rows are changed altogether, the columns' types but for numbers among them: training stays to the bit."""
    frame = cities()
    frame.loc[::9, "age"] = np.nan
    settings = {"target": "wage", "task": "city", "splits": HALVES, "shots": 3, "queries": 5}
    source = table(frame, **settings)
    other = frame.copy()
    away = ~frame["city"].isin(_splits()["train"])
    other.loc[away, "age"] = np.where(frame.loc[away, "age"].isna(), 1e6, np.nan)
    other.loc[away, "wage"] *= 1000
    other.loc[away, "job"] = "king"
    other.loc[away, "name"] = "same"
    changed = table(other, name="other.csv", **settings)
    assert changed.preprocessing() == source.preprocessing()
    for a, b in zip(*(s.sample(0, "train", torch.arange(30)) for s in (source, changed)), strict=True):
        assert torch.equal(a, b)
    assert changed.identity()["split_hash"] == source.identity()["split_hash"]
    assert changed.identity()["data_digest"] != source.identity()["data_digest"]


def test_the_digest_is_of_what_is_used_and_not_of_where_it_lies(table):
    frame = cities()
    digest = table(**REGRESSION, prepared=False).identity()["data_digest"]
    assert table(**REGRESSION, prepared=False, name="moved.csv").identity()["data_digest"] == digest
    assert table(frame.assign(job="x"), **REGRESSION, prepared=False).identity()["data_digest"] == digest
    frame.loc[3, "age"] += 1
    assert table(frame, **REGRESSION, prepared=False).identity()["data_digest"] != digest


def test_small_tasks_and_rows_without_a_target_are_left_out_with_a_line(table, caplog):
    caplog.set_level(logging.INFO)
    frame = cities()
    frame.loc[:4, "wage"] = np.nan
    source = table(frame, **REGRESSION | {"shots": 5, "queries": 10})
    kept = frame.dropna(subset="wage")["city"].value_counts()
    few = {split: sum(kept[name] < 15 for name in names) for split, names in _splits().items()}
    said = ", ".join(f"{n} of {split}" for split, n in few.items() if n)
    assert f"{sum(few.values())} tasks left out, with fewer rows than shots + queries: {said}" in caplog.text
    assert "5 rows without a value in wage or city left out" in caplog.text
    assert source.facts()["more"]["tasks"] == "/".join(str(len(_splits()[split]) - few[split]) for split in SPLITS)
    for split in SPLITS:
        assert len(source.clusters(0, split, torch.arange(200)).unique()) == len(_splits()[split]) - few[split]


def test_shots_of_the_test_may_be_others(table):
    source = table(**REGRESSION, eval_shots=6, eval_queries=2)
    for split, shots, queries in (("train", 3, 5), ("val", 6, 2), ("test", 6, 2)):
        task = source.sample(0, split, torch.arange(2))
        assert (task.support_x.shape, task.query_y.shape) == ((2, shots, 1), (2, queries, 1))


def test_classes_of_the_tasks_keep_their_meaning(table):
    """With data.task the target's classes are the same in all tasks, and each task has K and Q rows of each."""
    frame = cities()
    source = table(frame, target="job", task="city", features=["age"], splits=HALVES, shots=2, queries=1)
    assert (source.outputs, source.metric, source.facts()["ways"]) == (2, "accuracy", 2)
    scaler = StandardScaler().fit(frame.loc[frame["city"].isin(_splits()["train"]), ["age"]])
    ages = scaler.transform(frame[["age"]])[:, 0]
    task = source.sample(0, "train", torch.arange(20))
    for (x, y), each in zip(_parts(task), (2, 1), strict=True):
        assert torch.equal(y, torch.tensor([0, 1]).repeat_interleave(each).expand(20, -1))
        jobs = [frame["job"][int(np.abs(ages - point).argmin())] for point in x.flatten().tolist()]
        assert jobs == ["baker", "smith"][:1] * each + ["smith"] * each + jobs[2 * each :]
        assert [{"baker": 0, "smith": 1}[job] for job in jobs] == y.flatten().tolist()


def test_what_is_asked_is_read_off_the_target_or_said(table):
    whole = cities().assign(rich=lambda frame: (frame["wage"] > 10).astype(int))
    settings = {"task": "city", "features": ["age"], "splits": HALVES, "shots": 1, "queries": 1}
    assert table(whole, target="rich", **settings).metric == "mse"
    said = table(whole, target="rich", kind="classes", **settings)
    assert (said.metric, said.preprocessing()["target"]["classes"]) == ("accuracy", ["0", "1"])
    with pytest.raises(
        DataError, match=r"'(baker|smith)' .column 'job'.: expected numbers, as data.kind is regression"
    ):
        table(whole, target="job", kind="regression", **settings)


def test_the_classes_of_a_target_make_n_way_tasks(table, tmp_path):
    """Embeddings too: tasks of arrays are those of the same numbers in a CSV."""
    x, y = np.random.default_rng(0).normal(size=(120, 4)), np.repeat(np.arange(12), 10)
    np.savez(tmp_path / "data.npz", embeddings=x, labels=y)
    settings = {"ways": 3, "shots": 2, "queries": 4, "splits": HALVES}
    arrays = Table(str(tmp_path / "data.npz"), "labels", **settings)
    arrays.prepare(CPU)
    source = table(pandas.DataFrame(x).assign(labels=y), target="labels", **settings)
    assert (source.outputs, source.input_shape, source.split_sizes) == (3, (4,), {"train": 6, "val": 3, "test": 3})
    assert source.train_classes == 6
    task = source.sample(0, "test", torch.arange(9))
    assert all(torch.equal(a, b) for a, b in zip(task, arrays.sample(0, "test", torch.arange(9)), strict=True))
    names = split_names([str(n) for n in range(12)], HALVES, 0)
    training = np.isin(y.astype(str), names["train"])
    scaled = (x - x[training].mean(0)) / x[training].std(0)
    for point, label in zip(task.query_x[0], task.query_y[0], strict=True):
        row = np.abs(scaled - point.numpy()).sum(1).argmin()
        assert np.abs(scaled[row] - point.numpy()).max() < 1e-5
        assert str(y[row]) in names["test"]
        mates = [r for r, other in zip(task.support_x[0], task.support_y[0], strict=True) if other == label]
        assert all(y[np.abs(scaled - mate.numpy()).sum(1).argmin()] == y[row] for mate in mates)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"file": None}, r"null \(file\): expected a table .*data.file=FILE"),
        ({"target": None}, r"null \(target\): .*data.target=COLUMN"),
        ({"target": 3}, r"3 \(target\)"),
        ({"task": "wage"}, r"'wage' \(target\)"),
        ({"drop": "name"}, r"'name' \(drop\): expected names of columns, in brackets: data.drop=\[name\]"),
        ({"features": ["wage"]}, r"'wage' \(target\): expected a column with no other part"),
        ({"kind": "both"}, r"'both' \(kind\): expected one of regression, classes"),
        ({"task": None, "kind": "regression"}, r"'regression' \(kind\): .*data.task"),
        ({"ways": 2}, r"2 \(ways\): expected null with data.task"),
        ({"splits": [0.5, 0.5]}, r"\(splits\): expected three shares"),
        ({"shots": 0}, r"0 \(shots\)"),
        ({"split_seed": -1}, r"-1 \(split_seed\)"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_read(settings, said):
    Table(**{"file": "nowhere.csv", **REGRESSION})
    with pytest.raises(SettingError, match=said):
        Table(**{"file": "nowhere.csv", **REGRESSION, **settings})


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        ({}, {"target": "wages"}, r"'wages' \(data.target\): no such column; .*did you mean wage\?"),
        ({}, {"task": "town"}, r"'town' \(data.task\)"),
        ({}, {"drop": ["nam"]}, r"'nam' \(data.drop\).*did you mean name\?"),
        ({}, {"drop": None, "features": ["ages"]}, r"'ages' \(data.features\).*did you mean age\?"),
        ({"city": "here"}, {}, r"1 task \(column 'city', data.task\): .*val has none"),
        ({"wage": 5}, {}, r"5 \(column 'wage'\): is the target of all training rows"),
        ({"job": "x"}, {"target": "job", "drop": []}, r"'x' \(column 'job'\): is the class of all training rows"),
        ({"age": 1}, {}, r"age \(inputs\): the same in all training rows"),
        ({}, {"features": []}, r"no columns \(inputs\): expected one"),
        ({"age": np.inf}, {}, r"'inf' \(row 1 below the header, column 'age'\)"),
        ({"wage": np.nan}, {}, r"no row has a value in wage and city"),
        ({}, {"shots": 50}, r"55 \(shots \+ queries\): expected tasks with so many rows, and found them in 0 of 6 tasks of split train"),
    ],
)  # fmt: skip
def test_what_a_table_lacks_is_said_in_a_line(table, change, settings, said):
    with pytest.raises((DataError, UsageError), match=said) as error:
        table(cities().assign(**change), **REGRESSION | settings)
    assert "\n" not in str(error.value)


def test_a_target_of_numbers_with_signs_is_said_to_be_of_words(table):
    frame = cities()
    frame["wage"] = [f"${wage:.2f}" for wage in frame["wage"]]
    with pytest.raises(DataError, match=r"'wage' has words, as '\$.*for numbers data.kind=regression"):
        table(frame, **REGRESSION)


def test_a_word_among_the_numbers_of_the_target_has_a_remedy_that_a_target_has(table):
    frame = cities().astype({"wage": object})
    frame.loc[frame.index[0], "wage"] = "many"
    with pytest.raises(DataError, match=r"'many' \(row 1 below.*expected a number.*data\.kind=classes") as error:
        table(frame, **REGRESSION)
    assert "data.drop" not in str(error.value)


def test_whole_numbers_name_columns_too(table):
    frame = cities().rename(columns={"age": "2019", "wage": "2020"})
    source = table(frame, **REGRESSION | {"target": "2020", "features": [2019], "drop": None})
    assert source.source.columns.features == ["2019"]


def test_a_word_among_the_numbers_of_a_test_row_is_refused_too(table):
    frame = cities().astype({"age": object})
    row = int(np.flatnonzero(frame["city"] == _splits()["test"][0])[0])
    frame.loc[row, "age"] = "old"
    with pytest.raises(DataError, match=rf"'old' \(row {row + 1} below the header, column 'age'\)"):
        table(frame, **REGRESSION)


def test_a_rare_class_is_left_out_or_named(table, caplog):
    frame = cities()
    frame.loc[0, "city"] = "hamlet"
    source = table(frame, target="city", ways=2, shots=1, queries=1, splits=HALVES)
    assert "1 class of" in caplog.text
    assert "hamlet" in caplog.text
    assert sum(source.split_sizes.values()) == 12
    frame = cities()
    first = frame.index[frame["city"] == _splits()["train"][0]][0]
    frame.loc[first, "job"] = "queen"
    with pytest.raises(
        DataError, match=r"of each of 3 classes, and found those of 'queen' in 0 of 6 tasks of split train"
    ):
        table(frame, target="job", task="city", drop=["name"], shots=1, queries=1, splits=HALVES)


def test_rows_of_a_class_that_training_has_not_are_left_out_with_a_line(table, caplog):
    frame = cities()
    rows = frame.index[frame["city"] == _splits()["test"][0]][:2]
    frame.loc[rows, "job"] = "queen"
    table(frame, target="job", task="city", drop=["name"], shots=1, queries=1, splits=HALVES)
    assert "2 rows left out, of classes of job that no training task has" in caplog.text


def test_a_run_says_once_what_was_left_out_and_keeps_the_preprocessing(metarun, tmp_path):
    cities().to_csv(tmp_path / "cities.csv", index=False)
    words = ["data.file=cities.csv", "data.target=wage", "data.task=city", "data.drop=[name,job]", "data.shots=3"]
    code, out, err = metarun("data=table", *words, f"data.splits={HALVES}", *QUICK, "hydra.run.dir=run")
    assert code == 0, err
    assert "table 3-shot regression (queries: 10, target: (wage " in out
    assert err.count("tasks left out, with fewer rows") == 1
    assert "tasks left out, with fewer rows" in (tmp_path / "run/metarun.log").read_text()
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    source = Table(str(tmp_path / "cities.csv"), **REGRESSION)
    assert environment["inputs"]["columns"] == source.preprocessing()["columns"]
    assert environment["data_digest"] == source.identity()["data_digest"]


def test_its_facts_are_those_of_its_settings(table):
    facts = table(**REGRESSION, eval_shots=2).facts()
    wage = cities()["wage"][cities()["city"].isin(_splits()["train"])]
    sign = "-" if wage.mean() > 0 else "+"
    target = f"(wage {sign} {abs(wage.mean()):.4g}) / {wage.std(ddof=0):.4g}"
    more = {"target": target, "task": "city", "tasks": "6/3/3", "inputs": 1}
    assert facts == {
        "name": "table", "shots": 2, "queries": 5, "train_shots": 3, "train_queries": 5, "more": more,
    }  # fmt: skip
