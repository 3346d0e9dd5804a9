"""What the README says is what there is."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from helpers.own_data import write_own_data
from helpers.runs import ROOT, train

import metarun as metarun_package
from metarun.config.compose import compose
from metarun.config.folders import OWN
from metarun.config.keys import differing_keys, leaves, policy
from metarun.config.overrides import combinations, parse
from metarun.config.published import published
from metarun.config.through_hydra import reference_config
from metarun.results import runs
from metarun.run.build import build_experiment

TEXT = (ROOT / "README.md").read_text()


def _block(language, word):
    """The block of code with this word in it."""
    (found,) = [block for block in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) if word in block]
    return found


def _run_as_it_stands(metarun, monkeypatch, command, *more):
    """Runs a command with its environment; returns exit code, stdout and stderr."""
    trust, *words = command.split()
    monkeypatch.setenv(*trust.split("="))
    return metarun(*words[1:], *more)


def test_an_algorithm_of_ones_own_runs_as_it_stands(metarun, tmp_path, monkeypatch):
    (tmp_path / "my_algo.py").write_text(_block("python", "class Directions"))
    (tmp_path / "choices/algo").mkdir(parents=True)
    (tmp_path / "choices/algo/directions.yaml").write_text(_block("yaml", "my_algo"))
    command = _block("bash", "my_algo")
    code, out, err = _run_as_it_stands(metarun, monkeypatch, command, "hydra.run.dir=run")
    assert code == 0, err
    assert float(re.search(r"accuracy ([\d.]+) ±", out)[1]) > 65, "far above chance, which is 50"
    code, _, err = _run_as_it_stands(metarun, monkeypatch, command.replace("=my_algo", "="))
    assert code == 2
    assert "METARUN_TRUST" in err


@pytest.mark.parametrize(
    ("module", "choice", "word", "expected"),
    [("my_net", "model/my_net", "my_net.Net", "batch norm"), ("my_data", "data/blobs", "my_data.Blobs", "independent")],
)
def test_a_part_of_ones_own_runs_as_it_stands(metarun, tmp_path, monkeypatch, module, choice, word, expected):
    (tmp_path / f"{module}.py").write_text(_block("python", f"class {word.partition('.')[2]}"))
    (tmp_path / "choices" / choice).parent.mkdir(parents=True)
    (tmp_path / "choices" / f"{choice}.yaml").write_text(_block("yaml", word))
    for command, said in zip(_block("bash", module).splitlines(), ("all as expected", expected), strict=True):
        code, out, err = _run_as_it_stands(metarun, monkeypatch, command)
        assert code == 0, err
        assert said in out
    assert float(re.search(r"accuracy ([\d.]+) ±", out)[1]) > 65, "far above chance, which is 50"


def test_continuous_integration_runs_the_readmes_test_command():
    command = re.search(r"^    (python3 -m venv .*pytest)$", TEXT, re.MULTILINE)[1]
    assert command.replace("install -e", "install -q -e") in (ROOT / ".ci" / "run").read_text()


def test_every_setting_that_the_readme_names_exists():
    names = set(re.findall(r"(?<!metarun\.)\b((?:algo|data|model|engine|device)\.\w+)\b", TEXT))
    known = set()
    words = [f"data={name}" for name in OWN.options("data")]
    words += [f"algo={name}" for name in ("averaging", "closed_form", "meta_lstm", "lstm_generator", "reptile")]
    for word in words:
        config = reference_config((word, "engine=compile"))
        known |= {f"{name}.{key}" for name, section in config.items() if isinstance(section, dict) for key in section}
    assert {name for name in names if not name.endswith((".py", ".base"))} <= known


LINES = re.findall(r"^    (metarun [^#\n]*?)(?:  +#.*)?$", TEXT, re.MULTILINE)
SHORT = ("meta_steps=2", "val_every=1", "val_tasks=2", "test_tasks=3", "checkpoint_every=1", "budget=1")


def _shortened(line):
    """The words of a command, but with two outer steps; what it says of a run is said of the folder `run`."""
    words = [word.replace("DIR", "run") for word in shlex.split(line)[1:]]
    words = [{"waves": "run", "comparison": "folder", "outputs": "folder"}.get(word, word) for word in words]
    words = ["folder/run" if word.startswith("comparison/") else word for word in words]
    words = [word for word in words if not word.startswith(("hydra.run.dir=", "hydra.sweep.dir="))]
    if words and words[0] in VERBS:
        return [word for word in words if not word.startswith(("device=", "meta_steps="))]
    few = [word for word in SHORT if not any(other.startswith(word.partition("=")[0] + "=") for other in words)]
    cut = {word.partition("=")[0]: word for word in SHORT if word.partition("=")[0] in ("meta_steps", "test_tasks")}
    words = [cut.get(word.partition("=")[0], word) for word in words]
    words += few if "-cp" not in words else []
    if any(word.startswith("sweep=optuna") for word in words):
        words = [word for word in words if "n_trials" not in word] + ["hydra.sweeper.n_trials=2"]
    return words


VERBS = (
    *("eval", "resume", "reproduce", "table", "report", "adapt", "export"),
    *("explain", "doctor", "ls", "show", "diff", "tag", "rm", "watch"),
)
TRAINED = ("metarun algo=maml data=omniglot", "metarun hydra.run.dir=waves", "metarun -cp DIR/.hydra seed=1")


def _by_length(line):
    """By default commands on finished runs are run, and few that train; with -m slow the others."""
    quick = line in TRAINED or line.split()[1] in VERBS
    return pytest.param(line, marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize("line", [line for line in dict.fromkeys(LINES) if line.split()[1] not in (*VERBS, "-cp")])
def test_every_command_that_trains_composes(line):
    words = [word for word in _shortened(line) if word != "-m"]
    jobs = list(combinations(parse(words), OWN))
    assert len(jobs) == (9 if "fomaml,pretrain" in line else 6 if "fomaml" in line else len(jobs))
    assert {compose(list(job)).meta_steps for job in jobs} == {2}


@pytest.fixture(scope="module")
def drawings(data_root, tmp_path_factory):
    """A run on the small Omniglot."""
    words = ("data=omniglot", f"data.root={data_root}", "model.filters=4", *SHORT, "device=cpu")
    return train(tmp_path_factory.mktemp("runs") / "drawings", *words)


@pytest.mark.parametrize("line", map(_by_length, dict.fromkeys(LINES)))
def test_every_command_runs(metarun, finished, data_root, request, line):
    shutil.copytree(finished, "run")
    shutil.copytree(finished, "folder/run")
    if any(name in line for name in ("letters", "schools.csv", "names.csv", "drawings")):
        write_own_data(Path())
    if "drawings" in line:
        shutil.copytree(request.getfixturevalue("drawings"), "drawings")
    words = [word.replace("data.root=FOLDER", f"data.root={data_root}") for word in _shortened(line)]
    code, out, err = metarun(*words)
    if words[0] == "reproduce" and code == 2:  # the saved run's sinusoids have no data.root
        assert "data.root" in err
        return
    assert code == 0, err
    assert out


def test_a_run_is_loaded_as_the_readme_has_it(drawings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_own_data(tmp_path)
    shutil.copytree(drawings, "drawings")
    exec(_block("python", "metarun.load"), {})
    assert capsys.readouterr().out.count("letter 4") >= 1
    assert metarun_package.load("shapes.safetensors").classes_.tolist() == [f"letter {n}" for n in range(5)]


def test_the_table_of_results_is_that_of_the_saved_runs(metarun, monkeypatch):
    """scripts/publish.py writes it, at the root of the repository."""
    monkeypatch.chdir(ROOT)
    begin, end = "<!-- metarun table outputs/published -->\n", "<!-- end -->\n"
    code, out, err = metarun("table", str(ROOT / "outputs" / "published"))
    assert code == 0, err
    assert TEXT.partition(begin)[2].partition(end)[0].strip() == out.strip()
    assert "Left out" not in out


def test_the_page_of_comparison_is_that_of_the_kept_runs(monkeypatch):
    """scripts/compare.py writes it."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import compare

    begin, end = f"<!-- {compare.BLOCK} -->\n", "<!-- end -->\n"
    assert TEXT.partition(begin)[2].partition(end)[0].strip() == compare.page().strip()


def test_every_experiment_has_a_run_or_is_said_to_have_none():
    listed = TEXT.partition("<!-- experiments without a run -->\n")[2].partition("<!-- end -->\n")[0]
    for path in EXPERIMENTS:
        has_run = any((ROOT / "outputs" / "published" / path.parent.name / path.stem).glob("*/*/summary.json"))
        assert has_run != bool(re.search(rf"^- `{path.parent.name}`:.* `{path.stem}`", listed, re.M)), path


def test_published_runs_are_those_of_their_experiments(metarun):
    """Their configs are what the experiment composes to today, but for what was typed, then or on resume."""
    for folder in (ROOT / "outputs" / "published").glob("*/*/*/*"):
        run = runs.read_run(folder)
        name = f"{run.experiment}/budget_{run.config.budget:g}/{run.config.seed}"
        assert name == str(folder.relative_to(ROOT / "outputs" / "published"))
        then, now = (
            {key: value for key, value in leaves(config.plain()) if value is not None}  # settings that came later
            for config in (run.config, compose(run.rundir.overrides()))
        )
        environment = json.loads((folder / "environment.json").read_text())
        later = {key for session in environment.get("continued", []) for key in session["changed"]}
        found = [key for key in differing_keys(then, now) if key not in later and not policy(key).published]
        assert not found, folder
        assert environment["git"]["dirty"] is False


EXPERIMENTS = sorted((ROOT / "conf" / "experiment").rglob("*.yaml"))


FIRST_OF_A_PAPER = {path.parent: path for path in reversed(EXPERIMENTS)}.values()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_experiment_begins_with_its_command_and_composes(path):
    name = str(path.relative_to(ROOT / "conf" / "experiment").with_suffix(""))
    package, command, *_ = path.read_text().splitlines()
    assert (package, command) == ("# @package _global_", f"# metarun experiment={name}")
    config = compose([f"experiment={name}", "device=cpu"])
    if path in FIRST_OF_A_PAPER:
        build_experiment(config)
    if theirs := published(name):
        kept = config.algo.get("eval_inner_steps") or config.algo.get("inner_steps") or 0
        assert all(step <= kept for step in theirs.get("by_step") or {})
        assert 0 < theirs["mean"] < (10 if name.partition("/")[2].startswith("sinusoid") else 1)
