"""The command line: what it refuses, in which words, with which exit code, and that nothing is left behind."""

import errno
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from helpers.runs import QUICK, result
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from metarun import cli
from metarun.config.folders import OWN
from metarun.errors import RunDirError
from metarun.text import is_terminal


def _one_line(err):
    lines = err.strip().split("\n")
    assert len(lines) == 1, err
    assert lines[0].startswith("metarun: error: ")
    assert "Traceback" not in err
    return lines[0]


BAD = [  # words, exit code, what the line has to say: the value, the rule, the remedy
    (["algo=mamll"], 2, ["'mamll'", "algo", "anil, averaging, baseline,", "did you mean maml?"]),
    (["seed=1", "seed=2"], 2, ["seed", "given twice"]),
    (["seed=abc"], 2, ["'abc'", "seed", "integer"]),
    (["algo.inner_lr=-1"], 2, ["-1", "algo.inner_lr", "above 0"]),
    (["-m", "seed=range(0)"], 2, ["'seed=range(0)'", "no value", "as in seed=0,1,2"]),
    (["-m", "algo=maml,mamll"], 2, ["'mamll'", "did you mean maml?"]),
    (["-m", "algo.inner_lr=0.1,-1"], 2, ["-1", "algo.inner_lr"]),
    (["-m", "algo=maml,protonet", "data=sinusoid,tabular"], 2, ["algo=protonet data=sinusoid", "a source of classes"]),
    (["-m", "sweep=seeds", "seed=1"], 2, ["seed", "given twice"]),
    (["sweep=seeds"], 2, ["sweep=seeds", "add -m"]),
    (["algo.inner_lr=interval(0.1,1)"], 2, ["a range is for a search", "-m sweep=optuna"]),
    (["-m", "algo.inner_lr=interval(0.1,1)"], 2, ["a range is for a search", "-m sweep=optuna"]),
    (["-m", "seed=1", "hydra.run.dir=x"], 2, ["hydra.run.dir=x", "hydra.sweep.dir"]),
    (["hydra.sweep.dir=x"], 2, ["hydra.sweep.dir=x", "hydra.run.dir"]),
    (["evl", "x"], 2, ["did you mean eval?"]),
    (["eval"], 2, ["metarun eval", "RUN [RUN ...] [key=value ...]"]),
    (["table"], 2, ["metarun table", "DIR [DIR ...]"]),
    (["table", ".", "format=xml"], 2, ["'xml'", "'markdown', 'csv', 'json'"]),
    (["table", "nowhere"], 2, ["nowhere", "a folder with runs"]),
    (["report", ".", "out="], 2, ["out", "report.html"]),
    (["eval", "nowhere"], 4, ["nowhere", "no run there"]),
    (["resume", "nowhere"], 4, ["nowhere", "no run there"]),
    (["reproduce", "seed=1"], 4, ["seed=1", "no run there"]),
    (["-x"], 2, ["-x", "metarun --help"]),
    (["-cp", "nowhere"], 4, ["nowhere", "config.yaml"]),
    (["-cd", "nowhere"], 2, ["nowhere", "folder"]),
    (["-cn", "other"], 2, ["other", "experiment=name"]),
    (["--experimental-rerun", "x.pickle"], 2, ["unpickle"]),
    (["--resolve"], 2, ["--cfg"]),
    (["-m", "--cfg", "job"], 2, ["Only one of", "--multirun", "--cfg"]),
    (["data.shotts=3", "--cfg", "job"], 2, ["did you mean shots?"]),
    (["data=omniglot", "data.root=/nowhere", "data.download=false"], 3, ["/nowhere", "images_background.zip", "METARUN_DATA"]),
    (["model.norm_eps=1e-5"], 2, ["'model.norm_eps=1e-5'", "model.norm=none: it acts with model.norm=transductive or support"]),
    (["-m", "data=tabular", "algo=closed_form", "algo.solver=svm,ridge", "algo.newton_steps=9"], 2, ["algo.solver=ridge", "leave it out"]),
    (["~algo"], 2, ["'algo'", "algo=NAME"]),
    (["~model._target_"], 2, ["(model._target_)", "a class"]),
    (["check", "-cd", "a", "-cd", "b"], 2, ["-cd", "given twice"]),
    (["x" * 300], 2, ["expected key=value or one of"]),
    (["-cd", "x" * 300], 2, ["a folder with choices"]),
    (["eval", "x" * 300, "test_tasks=3"], 4, ["no run there"]),
    (["hydra.run.dir=a\udcff"], 2, ["a name of letters"]),
    (["ls", "x" * 300], 2, ["a folder with runs"]),
    (["adapt", "x" * 300, "query=q"], 4, ["expected a run directory"]),
    (["eval", "nowhere", f"data.x={'x' * 300}"], 4, ["no run there"]),
    (["hydra.run.dir=/dev/null/x"], 4, ["/dev/null/x", "hydra.run.dir"]),
    (["hydra.sweep.dir=/dev/null/x", "-m", "seed=1,2"], 4, ["/dev/null/x", "hydra.sweep.dir"]),
    (["hydra.run.dir="], 2, ["'hydra.run.dir='", "a folder"]),
    (["hydra.run.dir=null"], 2, ["'hydra.run.dir=null'", "a folder"]),
    (["-m", "seed=1,2", "hydra.sweep.dir=''"], 2, ["hydra.sweep.dir", "a folder"]),
    (["hydra.launcher._target_=os.system", "-m", "seed=1,2"], 2, ["hydra.launcher._target_", "METARUN_TRUST"]),
]  # fmt: skip


def _finished(monkeypatch, finished):
    """A finished run in run/."""
    shutil.copytree(finished, "run")


def _spoiled(spoil):
    def arrange(monkeypatch, finished):
        shutil.copytree(finished, "run")
        spoil(Path("run"))

    return arrange


def _environment(**values):
    def arrange(monkeypatch, finished):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return arrange


def _signal(signum, when):
    """The signal comes while the command line is checked, or while what it names is built."""

    def arrange(monkeypatch, finished):
        shutil.copytree(finished, "run")
        monkeypatch.setattr(when, lambda *_, **__: os.kill(os.getpid(), signum))

    return arrange


def _without(*names):
    def spoil(run):
        for name in names:
            for path in run.glob(name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return _spoiled(spoil)


def _empty(*names):
    return _spoiled(lambda run: [(run / name).write_text("") for name in names])


OMNIGLOT = ["data=omniglot", "data.download=false"]
BUILDING = "metarun.run.build.build"
BAD += [  # and what has to be there first
    (["run"], 2, ["'run'", "is a run directory", "eval, adapt, export, resume, reproduce"], _finished),
    (["eval", "run", "data.shotss=3"], 2, ["data.shotss", "did you mean shots?"], _finished),
    (["eval", "run", "meta_steps=9"], 2, ["meta_steps=9", "no effect"], _finished),
    (["eval", "run", "-m"], 2, ["-m"], _finished),
    (["eval", "run", "model.hidden=[9]"], 4, ["checkpoint", "another learner"], _finished),
    (["resume", "run", "seed=5"], 4, ["different in seed", "choose another"], _finished),
    (["resume", "run", "meta_steps=1"], 2, ["1", "meta_steps", "at least 4"], _finished),
    (["reproduce", "run", "seed=5"], 2, ["'seed=5'", "changes nothing but"], _finished),
    (["-cp", "run"], 4, ["run/config.yaml", "not found"], _finished),
    (["-cp", "run/.hydra", "algo=fomaml"], 2, ["'fomaml'", "settings of its own", "algo.key=value"], _finished),
    (["seed=3", "hydra.run.dir=run"], 4, ["different in", "seed", "another hydra.run.dir"], _finished),
    (["eval", "run"], 4, ["no run there"], _without(".hydra")),
    (["eval", "run"], 4, ["checkpoints are gone"], _without("checkpoints")),
    (["resume", "run", "meta_steps=9"], 4, ["holds checkpoints without their manifests"], _without("checkpoints/*.json")),
    (["eval", "run"], 4, ["step-00000004.pt", "No such file"], _without("checkpoints/*.pt")),
    (["reproduce", "run"], 4, ["metrics.jsonl", "No such file"], _without("metrics.jsonl")),
    (["reproduce", "run"], 4, ["summary.json", "missing", "metarun resume run"], _without("summary.json")),
    (["reproduce", "run"], 4, ["not finished", "metarun resume run"], _without("status.json")),
    (["reproduce", "run"], 4, ["environment.json", "missing", "restore it"], _without("environment.json")),
    (["resume", "run", "meta_steps=9"], 4, ["status.json", "remove the file"], _spoiled(lambda run: (run / "status.json").write_text("{"))),
    (["resume", "run"], 4, ["summary.json", "cannot be read"], _empty("summary.json")),
    (["hydra.run.dir=run"], 4, ["run: holds ", "but no run", "choose another"], _without(".hydra")),
    (OMNIGLOT, 3, ["/nowhere", "METARUN_DATA"], _environment(METARUN_DATA="/nowhere")),
    (OMNIGLOT, 3, ["/etc/passwd", "METARUN_DATA"], _environment(METARUN_DATA="/etc/passwd")),
    (OMNIGLOT, 3, ["/dev/null/x", "METARUN_DATA"], _environment(METARUN_DATA="", XDG_CACHE_HOME="/dev/null/x")),
    (["algo._target_=nowhere.Mine"], 2, ["'nowhere.Mine'", "No module"], _environment(METARUN_TRUST="nowhere")),
    (["algo._target_=os.system"], 2, ["'os.system'", "METARUN_TRUST=package"], _environment(METARUN_TRUST="os/system")),
    (["algo=mamll"], 2, ["'mamll'", "did you mean maml?"], _environment(HYDRA_FULL_ERROR="1")),
    ([], 2, ["'many'", "WORLD_SIZE", "an integer"], _environment(WORLD_SIZE="many")),
    ([], 2, ["'-1'", "RANK", "unset it"], _environment(RANK="-1", WORLD_SIZE="2")),
    ([], 130, ["SIGINT: stopped"], _signal(signal.SIGINT, BUILDING)),
    ([], 138, ["SIGUSR1: stopped"], _signal(signal.SIGUSR1, BUILDING)),
    ([], 129, ["SIGHUP: stopped"], _signal(signal.SIGHUP, BUILDING)),
    (["-m", "seed=1,2"], 143, ["SIGTERM: stopped"], _signal(signal.SIGTERM, BUILDING)),
    (["eval", "run"], 143, ["SIGTERM: stopped"], _signal(signal.SIGTERM, BUILDING)),
    (["reproduce", "run"], 143, ["SIGTERM: stopped"], _signal(signal.SIGTERM, BUILDING)),
    (["resume", "run", "meta_steps=9"], 143, ["SIGTERM", "metarun resume run"], _signal(signal.SIGTERM, BUILDING)),
]  # fmt: skip


def _named(row):
    what = row[3].__qualname__.split(".")[0].strip("_") if len(row) > 3 else ""
    return " ".join([*row[0], f"({what}: {row[2][0]})" if what else ""])


@pytest.mark.parametrize("row", BAD, ids=_named)
def test_bad_input_gets_one_line_and_leaves_nothing(metarun, monkeypatch, finished, row):
    words, code, said, *arrange = row
    for how in arrange:
        how(monkeypatch, finished)
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    got, out, err = metarun(*words)
    line = _one_line(err)
    assert got == code, line
    assert not out
    assert all(part in line for part in said), line
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert before or not list(Path().iterdir())


def test_output_that_cannot_be_written_is_said(metarun, monkeypatch):
    with suppress(OSError), open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code, _, err = metarun(*QUICK, "hydra.run.dir=run")
    assert code == 4
    assert "output (stdout): No space left on device" in _one_line(err.splitlines()[-1])
    assert "Error executing job" not in err
    assert json.loads(Path("run/status.json").read_text())["status"] == "done", "only its words are lost"


@pytest.mark.slow
def test_a_daemon_without_streams_and_a_notebooks_settings_are_fine(tmp_path):
    command = f"{sys.executable} -m metarun {' '.join(QUICK)} hydra.run.dir=run >&- 2>&- <&-; echo $? > code"
    notebook = {**os.environ, "MPLBACKEND": "module://a_backend_that_is_not_there"}
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=notebook)
    assert (tmp_path / "code").read_text() == "0\n"
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "done"
    assert (tmp_path / "run/curve.png").exists()


def test_the_outer_optimiser_takes_its_arguments(metarun):
    code, _, err = metarun(*QUICK, "+algo.meta_optimizer.weight_decay=0.1", "hydra.run.dir=run")
    assert code == 0, err
    assert "weight_decay: 0.1" in Path("run/.hydra/config.yaml").read_text()


def test_a_download_that_cannot_be_is_a_data_error(metarun, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    code, _, err = metarun("data=omniglot", "data.root=new/folder")
    assert code == 3
    assert "no network" in err
    assert "METARUN_DATA" in err
    assert not Path("new/folder").exists()


def test_a_wrong_name_is_reported_without_torch_which_takes_seconds(tmp_path):
    code = "import sys\nfrom metarun.cli import main\ncode = main()\nassert 'torch' not in sys.modules\nsys.exit(code)"
    for words in (["algo=mamll"], ["algo._target_=os.system"]):
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr


def test_help_names_every_choice_and_verb(metarun):
    code, out, _ = metarun("--help")
    assert code == 0
    for word in (*OWN.options("algo"), *OWN.options("data"), *OWN.options("model"), *cli.VERBS, "Exit codes"):
        assert word in out
    for words in (["help"], ["-h"], ["seed=1", "--help"], ["-m", "-h"]):
        assert metarun(*words)[:2] == (0, out), words
    assert metarun("--version")[1].startswith("metarun ")
    assert not list(Path().iterdir())


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb != "help"])
def test_every_verb_has_its_help(metarun, verb):
    code, out, _ = metarun(verb, "--help")
    assert code == 0
    assert f"usage: metarun {verb}" in out
    assert metarun("help", verb)[:2] == (0, out)


@pytest.mark.parametrize("words", [["--help"], ["help", "table"], ["--version"], ["table", "nowhere"], ["evl"]])
def test_what_needs_no_torch_imports_none(tmp_path, words):
    code = "import sys\nfrom metarun.cli import main\ntry:\n    main()\nfinally:\n    sys.exit(3 * ('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if words[0] == "--help":
        code = code.replace("'torch'", "'hydra'").replace("3 *", "4 *")
        assert subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cfg", "job", "algo=anil", "-p", "algo"], "inner_parameters: head"),
        (["--cfg", "hydra"], "job_logging"),
        (["--cfg", "job", "--resolve"], "inner_lr: 0.01"),
        (["--hydra-help"], "--multirun"),
    ],
)
def test_hydras_own_options(metarun, words, said):
    code, out, err = metarun(*words)
    assert code == 0, err
    assert said in out
    assert not list(Path().iterdir())


def test_choices_of_ones_own_from_another_folder(metarun):
    Path("mine/algo").mkdir(parents=True)
    Path("mine/algo/slow.yaml").write_text("defaults: [maml, _self_]\ninner_lr: 0.001\n")
    code, out, err = metarun("-cd", "mine", "algo=slow", "hydra.run.dir=run", *QUICK)
    assert code == 0, err
    assert "rate 0.001," in out


@pytest.mark.parametrize("verb", [["eval", "run"], ["resume", "run"], ["reproduce", "run"], ["-cp", "run/.hydra"]])
def test_a_strangers_config_is_read_as_plain_data(metarun, verb):
    """What is refused is tested on the reader, in tests/config/test_saved.py: all verbs read with it."""
    Path("run/.hydra").mkdir(parents=True)
    Path("run/.hydra/config.yaml").write_text("seed: !!python/object/apply:os.system ['touch owned']\n")
    before = sorted(map(str, Path().rglob("*")))
    code, _, err = metarun(*verb)
    assert code == 4
    assert "a tag" in _one_line(err)
    assert sorted(map(str, Path().rglob("*"))) == before


def test_a_strangers_environment_is_plain_data(metarun, finished):
    shutil.copytree(finished, "run")
    path = Path("run/environment.json")
    good = path.read_text()
    before = set(Path().rglob("*"))
    for bad in (
        "${oc.create:{_target_: logging.FileHandler, filename: owned}}",
        {"_target_": "os.system", "_args_": ["touch owned"]},
        -1,
        "x",
    ):
        for key in ("threads", "chunk"):
            path.write_text(json.dumps({**json.loads(good), key: bad}))
            code, _, err = metarun("reproduce", "run")
            assert code in (2, 4), (bad, err)
            _one_line("\n".join(line for line in err.splitlines() if not line.startswith("reproducing")))
    path.unlink()
    code, _, err = metarun("reproduce", "run")
    assert code == 4
    assert "environment.json" in err
    assert not Path("owned").exists()
    assert {p for p in set(Path().rglob("*")) - before if p.is_file()} == set()


def test_nothing_else_in_a_strangers_config_folder_is_used(metarun, finished):
    """Hydra would compose this launcher instead of its own, and call back whatever it names."""
    shutil.copytree(finished, "run")
    evil = Path("run/.hydra/hydra/launcher/basic.yaml")
    evil.parent.mkdir(parents=True)
    evil.write_text("# @package hydra.callbacks.evil\n_target_: logging.FileHandler\nfilename: owned\n")
    code, _, err = metarun("-cp", "run/.hydra", "seed=2", "hydra.run.dir=again")
    assert code == 0, err
    assert not Path("owned").exists()


def test_settings_of_a_saved_config_are_checked_by_type(metarun, finished):
    shutil.copytree(finished, "run")
    path = Path("run/.hydra/config.yaml")
    path.write_text(path.read_text().replace("first_order: false", "first_order: 'no'"))
    code, _, err = metarun("-cp", "run/.hydra", "hydra.run.dir=again")
    assert code == 2
    assert "true or false" in _one_line(err)


def test_in_a_pipe_there_is_no_bar(metarun):
    code, _, err = metarun(*QUICK, "hydra.run.dir=run")
    assert code == 0, err
    assert re.fullmatch(
        r"MAML on sinusoid 10-shot regression, 4 outer steps of 25 tasks, cpu \(\d+ threads?\), in run\n", err
    )


def test_on_a_terminal_there_is_a_bar_and_one_without_the_signs_shows_others(tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "metarun", *QUICK, "hydra.run.dir=run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(main, 4096):
            shown += part
    except OSError:
        pass  # the terminal ends with the process
    os.close(main)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert b"4/4" in shown
    assert b"done: 100%" in shown
    assert re.search(rb"loss [\d.]+, val mse [\d.]+", shown)
    assert shown.count(b" outer step") == 1, "no log lines beside the bar but the first"
    assert re.search(r"mse [\d.]+ \? [\d.]+ \(mean and 95% interval over 6 tasks\)", out), "± cannot be shown"


def test_a_task_source_of_ones_own_suggests_nothing_and_runs(metarun, monkeypatch):
    Path("choices/data").mkdir(parents=True)
    monkeypatch.setenv("METARUN_TRUST", "own_data")
    Path("own_data.py").write_text("from metarun.data.tabular import Tabular\n\n\nclass Own(Tabular):\n    pass\n")
    whole = "# @package _global_\ndefaults: [{/model: mlp}, _self_]\ndata:\n  _target_: own_data.Own\n  ways: 2\n"
    Path("choices/data/whole.yaml").write_text(whole)
    code, out, err = metarun("-cd", "choices", "data=whole", *QUICK)
    assert code == 0, err
    assert "SGD, rate 0.01, steps: 1 in training, 5 in test" in out, "what conf/config.yaml suggests"


@pytest.mark.parametrize("logging", ["job_logging", "hydra_logging"])
def test_logging_of_a_strangers_choices_is_left_alone(metarun, logging):
    Path("theirs/algo").mkdir(parents=True)
    handler = "version: 1, root: {handlers: [x]}, handlers: {x: {(): os.mkdir, path: owned}}"
    evil = f"# @package _global_\ndefaults: [/algo/maml@algo, _self_]\nhydra:\n  {logging}: {{{handler}}}\n"
    Path("theirs/algo/evil.yaml").write_text(evil)
    code, _, err = metarun("-cd", "theirs", "algo=evil", *QUICK)
    assert code == 0, err
    assert not Path("owned").exists()


def test_a_saved_config_runs_again_from_anywhere(metarun, finished):
    shutil.copytree(finished, "run")
    os.chdir("run")
    code, out, err = metarun("-cp", ".hydra", "seed=4", "algo.inner_lr=0.02", "hydra.run.dir=../again")
    os.chdir("..")
    assert code == 0, err
    assert "rate 0.02," in out
    config = yaml.safe_load(Path("again/.hydra/config.yaml").read_text())
    assert (config["seed"], config["model"]["hidden"]) == (4, [8])
    assert not {"suggested", "needs", "published"} & config.keys()


def test_choices_are_kept_with_the_run(metarun):
    words = ("experiment=finn2017/sinusoid_5shot", "device=cpu", "budget=0.0001", "val_tasks=2", "test_tasks=2")
    assert metarun(*words, "hydra.run.dir=run")[0] == 0
    choices = {
        "experiment": "finn2017/sinusoid_5shot",
        "algo": "maml",
        "data": "sinusoid",
        "model": "mlp",
        "device": "cpu",
        "engine": "vmap",
    }
    assert json.loads(Path("run/summary.json").read_text())["choices"] == choices
    assert yaml.safe_load(Path("run/.hydra/choices.yaml").read_text()) == choices


class _Notebook(io.TextIOBase):
    """A stream as ipykernel has it: it writes, and is no file."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        return len(text)


def _state():
    """What a notebook and its other cells share with metarun."""
    log = logging.getLogger("metarun")
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    torches = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    return dict(os.environ), log.handlers[:], log.level, log.propagate, handlers, torches, GlobalHydra.instance().hydra


def test_a_notebook_calls_main_several_times_and_in_a_thread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    out, err, codes = _Notebook(), _Notebook(), []
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("MPLBACKEND", "module://a_backend_that_is_not_there")
    Path("theirs").mkdir()
    with initialize_config_dir(str(tmp_path / "theirs"), version_base="1.3"):  # a notebook with a Hydra of its own
        before = _state()
        codes.append(cli.main([*QUICK, "hydra.run.dir=a"]))
        thread = threading.Thread(target=lambda: codes.append(cli.main([*QUICK, "hydra.run.dir=b"])))
        thread.start()
        thread.join()
        codes += [cli.main(words) for words in (["table", "--help"], ["-m", "seed=1,x"], ["--cfg", "job"])]
        assert _state() == before
        assert (sys.stdout, sys.stderr) == (out, err)
    assert codes == [0, 0, 0, 2, 0], err.text
    assert result("a") == result("b")
    assert out.text.count("metarun reproduce") == 2
    assert "'x' (seed)" in err.text.splitlines()[-1]


def test_a_choice_that_was_edited_between_two_calls_is_read_again(metarun):
    Path("mine/algo").mkdir(parents=True)
    for rate in ("0.25", "0.125"):
        Path("mine/algo/slow.yaml").write_text(f"defaults: [maml, _self_]\ninner_lr: {rate}\n")
        code, _, err = metarun("-cd", "mine", "algo=slow", "algo.inner_steps=0")
        assert code == 2
        Path("mine/algo/slow.yaml").write_text(f"defaults: [maml, _self_]\ninner_lr: -{rate}\n")
        code, _, err = metarun("-cd", "mine", "algo=slow")
        assert f"-{rate} (algo.inner_lr)" in _one_line(err)


@pytest.mark.parametrize(("close", "code"), [("| true", 141), (">/dev/full", 4)])
def test_a_closed_pipe_is_silent_and_a_full_disk_is_said(tmp_path, close, code):
    command = f"set -o pipefail; {sys.executable} -m metarun --help {close}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.count("\n") == (code == 4), "and Python does not complain at its end"


def test_what_ended_a_job_keeps_its_cause():
    """By which main() knows a pipe that was closed while a run trained, and is silent."""
    from metarun.commands import train

    def end():
        pipe, error = BrokenPipeError(), RunDirError("output (stdout)")
        error.__cause__ = pipe
        raise SystemExit(4) from error

    with pytest.raises(RunDirError) as caught:
        train._hand_over(end)
    assert isinstance(caught.value.__cause__, BrokenPipeError)


def test_errors_go_where_nobody_can_read_them(tmp_path):
    command = f"{sys.executable} -m metarun evl 2>/dev/full"
    for unbuffered in ("", "1"):
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        assert subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment).returncode == 2


def test_a_working_directory_that_is_gone_is_said(tmp_path):
    command = f"mkdir gone; cd gone; rmdir ../gone; {sys.executable} -m metarun"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 4
    assert "the working directory (file system): was removed" in _one_line(done.stderr)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files (open files)"),
        (MemoryError(), "out of memory (memory)"),
        (RuntimeError("can't start new thread"), "can't start new thread (processes and threads)"),
    ],
)
def test_what_the_system_lacks_is_neither_stdouts_fault_nor_metaruns(metarun, monkeypatch, error, said):
    def lack(*_):
        raise error

    monkeypatch.setattr("metarun.run.build.build", lack)
    code, _, err = metarun()
    assert code == 1
    assert said in _one_line(err)


def test_on_windows_a_line_says_that_it_does_not_run_there(tmp_path):
    code = "import sys; sys.platform = 'win32'; sys.modules['fcntl'] = None; import metarun.cli"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Windows (operating system): expected Linux or macOS" in _one_line(done.stderr)


def test_a_terminal_without_a_size_is_a_pipe():
    import pty

    main, terminal = pty.openpty()  # 0 x 0, as under some schedulers and in some editors
    with open(terminal, "w") as stream:
        assert stream.isatty()
        assert not is_terminal(stream)
    os.close(main)
