"""All about one run, whatever its state, as facts and as lines."""

import shutil
from pathlib import Path

import pytest
from helpers.listed import make_run
from helpers.results import edit

from metarun.results.run_names import find_run
from metarun.results.showing import RunFacts, show_run
from metarun.results.showing_text import as_text
from metarun.storage.records import Environment, Session
from metarun.storage.rundir import RunDir


def add_evaluation(run, name="eval/2026-01-31/12-00-00-1"):
    """What `metarun eval RUN test_tasks=9` leaves."""
    folder = Path(run, name)
    folder.mkdir(parents=True)
    for part in ("summary.json", "environment.json"):
        shutil.copy(Path(run, part), folder)
    config = Path(run, ".hydra/config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("test_tasks: 6", "test_tasks: 9"))
    return folder


def test_a_finished_run_is_shown_with_all_that_it_is(finished):
    shutil.copytree(finished, "run")
    add_evaluation("run")
    facts = show_run(Path("run"))
    assert {key: (c.value, c.default) for key, c in facts.settings.items()} == {
        **{"meta_steps": (4, 5000), "val_every": (2, 250), "val_tasks": (4, 100), "test_tasks": (6, 600)},
        **{"log_every": (1, 50), "model.hidden": ([8], [40, 40])},
    }
    assert facts.summary == RunDir(Path("run")).summary()
    assert [(p.step, p.split) for p in facts.curve if p.split != "train"] == [(2, "val"), (4, "val"), (4, "test")]
    assert facts.curve[-1].value == facts.run.test
    assert [test.changes for test in facts.evaluations] == [{"test_tasks": 9}]
    assert sum(f.bytes for f in facts.files) == sum(p.stat().st_size for p in Path("run").rglob("*") if p.is_file())
    assert facts.command.startswith("metarun meta_steps=4 ")


def test_json_parses_back_into_its_record(finished):
    shutil.copytree(finished, "run")
    for path in (Path("run"), add_evaluation("run")):
        facts = show_run(path)
        assert RunFacts.from_json(facts.to_document()) == facts


def test_an_evaluation_says_what_it_changed_of_its_run(finished):
    shutil.copytree(finished, "run")
    facts = show_run(find_run(str(add_evaluation("run"))))
    assert (facts.kind, facts.of) == ("evaluation", "run")
    assert {key: (c.value, c.default) for key, c in facts.settings.items()} == {"test_tasks": (9, 6)}
    assert "an evaluation of run" in as_text(facts, 80)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        *(("stopped", "metarun resume run"), ("failed", "metarun -cp run/.hydra"), ("running", "metarun watch run")),
        ("done", "metarun reproduce run"),
    ],
)
def test_it_says_how_to_go_on(status, words):
    facts = show_run(make_run("run", status, words=["seed=1"]))
    assert words in as_text(facts, None)
    assert facts.settings is None, "its config is not complete, and nothing can be compared"
    assert "seed=1" in as_text(facts, None)


@pytest.mark.parametrize(
    "name", ["status.json", "summary.json", "metrics.jsonl", ".hydra/config.yaml", "environment.json"]
)
@pytest.mark.parametrize("content", [None, b"{", b"\xff"])
def test_a_damaged_run_can_be_looked_at(finished, name, content):
    shutil.copytree(finished, "run")
    Path("run", name).unlink()
    if content:
        Path("run", name).write_bytes(content)
    facts = show_run(Path("run"))
    assert as_text(facts, 80).startswith("run: ")
    assert RunFacts.from_json(facts.to_document()) == facts


@pytest.mark.parametrize("name", ["status.json", "summary.json"])
def test_what_resume_makes_anew_is_not_only_to_be_removed(finished, name):
    shutil.copytree(finished, "run")
    Path("run", name).write_text("{")
    assert next(iter(show_run(Path("run")).go_on.items())) == ("go on", "metarun resume run")
    shutil.rmtree("run/checkpoints")
    assert list(show_run(Path("run")).go_on) == ["remove"]


def test_its_command_has_the_folders_of_configs(finished):
    shutil.copytree(finished, "run")
    words = ["-m", "metarun", "-cd", "my choices", "--config-path=x/.hydra", "algo=mine", "hydra.run.dir=run"]
    edit("run", "environment.json", lambda environment: environment.update(argv=words))
    command = show_run(Path("run")).command
    assert command.startswith("metarun -cd 'my choices' --config-path=x/.hydra ")
    edit("run", "summary.json", lambda summary: summary["training"].update(trains=False))
    assert "train longer" not in show_run(Path("run")).go_on


def test_a_line_that_is_being_written_is_left_out(finished):
    shutil.copytree(finished, "run")
    whole = show_run(Path("run")).curve
    with Path("run/metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "spl')
    assert show_run(Path("run")).curve == whole


@pytest.mark.parametrize("width", [80, 200, None])
@pytest.mark.parametrize("braille", [True, False])
def test_lines_fit_the_terminal_but_for_those_that_are_copied(finished, width, braille):
    facts = show_run(finished)
    kept = {*facts.go_on.values(), facts.command}
    lines = [line for line in as_text(facts, width, braille).splitlines() if not any(map(line.endswith, kept))]
    assert braille or all(ord(char) < 0x2800 for line in lines for char in line)
    for line in lines[2:]:
        assert width is None or len(line) <= width or line.startswith(("validation", "loss", "run: ", "eval")), line


def test_a_run_that_was_killed_is_as_far_as_its_files_say(monkeypatch):
    run = make_run("run", "running", age=10**6, step=172)
    status = RunDir(run).status()
    (run / "metrics.jsonl").write_text('{"step": 450, "split": "train", "loss": 1.0, "accuracy": 0.5}\n{"step": 4')
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints/step-00000250.json").touch()
    monkeypatch.setattr("metarun.results.listing.is_alive", lambda *_: False)
    facts = show_run(run)
    assert status.step < 250
    assert (facts.run.status, facts.run.step, facts.saved_step) == ("stale", 450, 250)
    assert "saved after outer step 250" in as_text(facts, None)


def test_a_run_that_diverged_is_not_to_go_on():
    run = make_run("run", "failed")
    status = RunDir(run).status().model_copy(update={"error": "the meta-loss of training task 1 is not finite (...)"})
    (run / "status.json").write_bytes(status.to_json())
    lines = as_text(show_run(run), None)
    assert "metarun resume" not in lines
    assert "metarun -cp run/.hydra algo.inner_lr=" in lines


def test_the_tests_of_a_run_that_is_to_go_on_are_not_lost(finished):
    shutil.copytree(finished, "run")
    rundir = RunDir(Path("run"))
    summary = rundir.summary()
    assert show_run(Path("run")).earlier == []
    rundir.write_status("stopped", 6, "SIGTERM: stopped", steps=8)
    facts = show_run(Path("run"))
    assert facts.summary is None
    assert [(test.outer_steps, test.mean) for test in facts.earlier] == [(4, summary.test.mean)]
    (line,) = (line for line in as_text(facts, None).splitlines() if line.startswith("tested before"))
    assert "after 4 outer steps" in line


def test_sessions_that_went_on_are_said():
    run = make_run("run", "stopped")
    environment = Environment(versions={"torch": "2"}, continued=[Session(after_step=7, changed=["device.name"])])
    (run / "environment.json").write_bytes(environment.to_json())
    assert "after outer step 7, with other device.name" in as_text(show_run(run), None)
