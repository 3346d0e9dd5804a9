"""The command line: what it refuses, in which words, with which exit code, and that nothing is left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers.runs import ROOT

from metarun.config.compose import compose
from metarun.config.edit import with_changes
from metarun.errors import UsageError

QUICK = ("meta_steps=4", "val_every=2", "val_tasks=4", "test_tasks=6", "log_every=1")


def _one_line(err):
    lines = err.strip().split("\n")
    assert len(lines) == 1, err
    assert lines[0].startswith("metarun: error: ")
    assert "Traceback" not in err
    return lines[0]


BAD = [  # words, exit code, what the line has to say: the value, the rule, the remedy
    (["algo=mamll"], 2, ["'mamll'", "algo", "fomaml, lstm_generator, maml,", "did you mean maml?"]),
    (["data=omniglott"], 2, ["'omniglott'", "omniglot, sequences, sinusoid, tabular", "did you mean omniglot?"]),
    (["model=conv5"], 2, ["'conv5'", "conv4, lstm, mlp"]),
    (["engine=fast"], 2, ["'fast'", "loop, vmap"]),
    (["device=gpu"], 2, ["'gpu'", "auto, cpu, cuda"]),
    (["experiment=none"], 2, ["'none'", "finn2017/omniglot_5w1s"]),
    (["algo.inner_lrr=1"], 2, ["algo.inner_lrr", "did you mean inner_lr?"]),
    (["meta_step=3"], 2, ["meta_step", "did you mean meta_steps?"]),
    (["foo.bar=3"], 2, ["foo.bar"]),
    (["protocol.inner=1"], 2, ["protocol.inner", "inner_lr"]),
    (["seed=1", "seed=2"], 2, ["seed", "given twice"]),
    (["-m", "algo=glob(x*)"], 2, ["glob(x*)", "no value", "fomaml"]),
    (["algo=maml", "algo=fomaml"], 2, ["algo", "given twice"]),
    (["data.shots=1", "+data.shots=2"], 2, ["data.shots", "given twice"]),
    (["seed=abc"], 2, ["'abc'", "seed", "integer"]),
    (["seed=-1"], 2, ["-1", "seed", "at least 0"]),
    (["seed=null"], 2, ["null", "seed", "integer"]),
    (["seed=1.5"], 2, ["1.5", "integer"]),
    (["meta_steps=0"], 2, ["0", "meta_steps", "at least 1"]),
    (["meta_steps=1e3"], 2, ["1000.0", "meta_steps", "integer"]),
    (["test_tasks=1"], 2, ["test_tasks", "at least 2"]),
    (["test_tasks=true"], 2, ["true", "integer"]),
    (["objective=best"], 2, ["'best'", "val, test"]),
    (["algo.inner_lr=abc"], 2, ["'abc'", "algo.inner_lr", "a number"]),
    (["algo.inner_lr=-1"], 2, ["-1", "algo.inner_lr", "above 0"]),
    (["algo.inner_lr=0"], 2, ["0", "algo.inner_lr", "above 0"]),
    (["algo.inner_lr=nan"], 2, ["nan", "algo.inner_lr", "finite"]),
    (["algo.inner_lr=inf"], 2, ["inf", "algo.inner_lr", "finite"]),
    (["algo.inner_lr=[1,2]"], 2, ["algo.inner_lr", "a number"]),
    (["algo.inner_steps=0"], 2, ["algo.inner_steps", "at least 1"]),
    (["algo.meta_lr=-0.1"], 2, ["-0.1", "algo.meta_lr"]),
    (["algo.first_order=maybe"], 2, ["'maybe'", "true or false"]),
    (["algo.inner_lr=null"], 2, ["null", "algo.inner_lr", "expected a value"]),
    (["algo=lstm_generator", "algo.hidden=100000000"], 2, ["algo", "LSTMGenerator cannot be built", "memory"]),
    (["algo=meta_sgd", "algo.eval_inner_steps=-1"], 2, ["-1", "algo.eval_inner_steps", "at least 0"]),
    (["+algo.meta_optimizer.lr=0.5"], 2, ["0.5", "algo.meta_optimizer.lr", "set algo.meta_lr"]),
    (["-m", "algo=maml,protonet", "data=sinusoid,tabular"], 2, ["algo=protonet data=sinusoid", "a source of classes"]),
    (["algo.inner_parameters=body"], 2, ["'body'", "weights, head, all"]),
    (["algo.meta_lr_schedule=step"], 2, ["'step'", "algo.meta_lr_schedule", "constant, linear, cosine"]),
    (["algo.meta_clip=0"], 2, ["0", "algo.meta_clip", "above 0"]),
    (["algo=protonet"], 2, ["sinusoid", "a source of classes", "no meaning in regression"]),
    (["algo=oracle", "data=tabular"], 2, ["tabular", "tell the truth", "data=sinusoid"]),
    (["algo=averaging", "algo.regularize=l2"], 2, ["'l2'", "algo.regularize", "none with algo.average=predictions"]),
    (["algo=averaging", "algo.average=parameters", "algo.learners=3"], 2, ["5", "meta_batch", "3, as algo.learners"]),
    (["algo=averaging", "algo.average=parameters", "algo.regularize=mean"], 2, ["algo.strength", "above 0"]),
    (["algo=averaging", "algo.average=parameters", "algo.inner_steps=1"], 2, ["algo.inner_steps", "null"]),
    (["algo=maml_pp", "algo.eval_inner_steps=3"], 2, ["3", "algo.eval_inner_steps", "5, as inner_steps"]),
    (["algo=maml_pp", "algo.multi_step_until=15"], 2, ["15", "algo.multi_step_until", "from 0 to 1"]),
    (["algo=maml_pp", "algo.first_order=true"], 2, ["algo.first_order", "did you mean first_order_until?"]),
    (["algo=reptile", "algo.inner_batch=0"], 2, ["0", "algo.inner_batch", "at least 1"]),
    (["algo=reptile", "algo.inner_betas=[0,1]"], 2, ["algo.inner_betas", "[0, 1)"]),
    (["algo=reptile", "algo.inner_optimizer=sgd"], 2, ["algo.inner_betas", "null with inner_optimizer=sgd"]),
    (["algo=meta_lstm", "algo.feedback=raw"], 2, ["'raw'", "algo.feedback", "logits, gates"]),
    (["algo=meta_lstm", "algo.inner_lr=0.1"], 2, ["algo.inner_lr", "no such key"]),
    (["algo=lstm_generator", "algo.generate=body"], 2, ["'body'", "algo.generate", "all, head"]),
    (["algo=lstm_generator", "algo.hidden=0"], 2, ["0", "algo.hidden", "at least 1"]),
    (["data=sequences", "data.length=1"], 2, ["1", "data.length", "at least 2"]),
    (["data=sequences", "model=conv4"], 2, ["model", "images", "model=mlp"]),
    (["model=lstm"], 2, ["model", "sequences: length, symbols"]),
    (["algo.inner_optimizer=rmsprop"], 2, ["'rmsprop'", "sgd, adam"]),
    (["algo.inner_betas=[0.9,0.99]"], 2, ["algo.inner_betas", "null with inner_optimizer=sgd"]),
    (["algo.inner_loss_reduction=per_shots"], 2, ["did you mean per_shot?"]),
    (["data=omniglot", "data.ways=101"], 2, ["101", "data.ways", "at most 100"]),
    (["data=omniglot", "data.ways=1"], 2, ["data.ways", "at least 2"]),
    (["data=omniglot", "data.ways=5.0"], 2, ["5.0", "data.ways", "integer"]),
    (["data=omniglot", "data.shots=15", "data.queries=6"], 2, ["21", "at most 20"]),
    (["data=omniglot", "data.shots=11"], 2, ["22", "at most 20"]),
    (["data=omniglot", "data.rotations=al"], 2, ["did you mean all?"]),
    (["data.shots=0"], 2, ["data.shots", "at least 1"]),
    (["data.ways=5"], 2, ["data.ways", "data has shots, queries"]),
    (["data=tabular", "data.teacher=forest"], 2, ["'forest'", "linear, mlp, tree, noise"]),
    (["model=conv4"], 2, ["model", "images", "model=mlp"]),
    (["model.hidden=40"], 2, ["40", "model.hidden", "a list"]),
    (["model.hidden=[0]"], 2, ["model.hidden", "at least 1"]),
    (["model.hidden=[a]"], 2, ["integer"]),
    (["model.norm=batch"], 2, ["'batch'", "none, transductive, support"]),
    (["device=cuda"], 2, ["'cuda'", "device=cpu"]),
    (["device.threads=0"], 2, ["device.threads", "at least 1"]),
    (["engine.chunk=0"], 2, ["engine.chunk", "auto, or an integer"]),
    (["engine.chunk=many"], 2, ["'many'", "engine.chunk"]),
    (["engine=loop", "engine.chunk=3"], 2, ["engine.chunk", "no such key"]),
    (["engine.compiled=task"], 2, ["engine.compiled", "no such key"]),
    (["engine=compile", "engine.compiled=all"], 2, ["'all'", "engine.compiled", "step, task"]),
    (["engine=compile", "engine.compile_from=-1"], 2, ["-1", "engine.compile_from"]),
    (["engine=compile", "engine.compiled=task", "engine.compile_from=0", "algo=maml_pp"], 2, ["engine.compiled", "step", "MAML++"]),
    (["engine.checkpoint_inner=2"], 2, ["engine.checkpoint_inner", "true or false"]),
    (["engine.autocast=float16"], 2, ["'float16'", "engine.autocast", "bfloat16"]),
    (["device=cpu", "device.tf32=true"], 2, ["device.tf32", "CPU"]),
    (["+foo=1"], 2, ["'foo'", "no such key"]),
    (["+algo.foo=1"], 2, ["algo.foo", "no such key"]),
    (["~seed"], 2, ["'seed'", "missing"]),
    (["~algo"], 2, ["algo"]),
    (["algo._target_=os.system"], 2, ["'os.system'", "METARUN_TRUST"]),
    (["algo._target_=metarun.algos.maml.Mamll"], 2, ["Mamll"]),
    (["algo._target_=metarun.engine.device.subprocess.Popen"], 2, ["Popen", "expected a class"]),
    (["algo._target_=metarun.engine.device.Path"], 2, ["'metarun.runtime.Path'", "define themselves"]),
    (["algo.meta_optimizer._target_=subprocess.Popen"], 2, ["'subprocess.Popen'", "METARUN_TRUST"]),
    (["algo.meta_optimizer._target_=metarun.engine.device.Path"], 2, ["algo.meta_optimizer", "define themselves"]),
    (["algo.meta_optimizer._target_=torch.optim.Adamm"], 2, ["Adamm"]),
    (["seed=0,1"], 2, ["'seed=0,1'", "add -m"]),
    (["seed=[1"], 2, ["'seed=[1'", "key=value"]),
    (["=5"], 2, ["key=value"]),
    (["seed"], 2, ["'seed'", "key=value"]),
    (["evl", "x"], 2, ["did you mean eval?"]),
    (["eval"], 2, ["metarun eval DIR"]),
    (["eval", "seed=1"], 2, ["metarun eval DIR"]),
    (["eval", "nowhere"], 4, ["nowhere", "no run there"]),
    (["resume", "nowhere"], 4, ["nowhere", "no run there"]),
    (["reproduce", "nowhere"], 4, ["nowhere", "no run there"]),
    (["-x"], 2, ["-x", "metarun --help"]),
    (["-cp", "nowhere"], 4, ["nowhere", "config.yaml"]),
    (["-cd", "nowhere"], 2, ["nowhere", "folder"]),
    (["-cn", "other"], 2, ["other", "experiment=name"]),
    (["--experimental-rerun", "x.pickle"], 2, ["unpickle"]),
    (["-m", "algo=maml,mamll"], 2, ["'mamll'", "did you mean maml?"]),
    (["-m", "algo.inner_lr=0.1,-1"], 2, ["-1", "algo.inner_lr"]),
    (["data=omniglot", "data.root=/nowhere", "data.download=false"], 3, ["/nowhere", "images_background.zip", "METARUN_DATA"]),
    (["data=null"], 2, ["'data=null'", "data=name"]),
    (["hydra.run.dir=a=b"], 2, ["hydra.run.dir=a=b", "quotes"]),
    (["device.threads=100000"], 2, ["device.threads", "at most 1024"]),
    (["algo.meta_optimizer._target_=torch.optim.LBFGS"], 2, ["LBFGS", "Adam"]),
    (["data.shotts=3", "--cfg", "job"], 2, ["did you mean shots?"]),
    (["meta_steps=abc", "--cfg", "job"], 2, ["'abc'", "an integer"]),
    (["sweep=seeds"], 2, ["sweep=seeds", "add -m"]),
    (["-m", "sweep=none"], 2, ["'none'", "seeds"]),
    (["-m", "sweep=seeds", "seed=1"], 2, ["seed", "given twice"]),
    (["--resolve"], 2, ["--cfg job"]),
    (["+algo.meta_optimizer.momentumm=0.9"], 2, ["momentumm", "Adam"]),
    (["algo.meta_optimizer._target_=torch.optim.SGD", "+algo.meta_optimizer.betas=[0,1]"], 2, ["betas", "SGD"]),
    (["+algo.meta_optimizer.betas=[2,3]"], 2, ["algo.meta_optimizer", "beta"]),
    (["hydra.run.dir=/dev/null/x"], 4, ["/dev/null/x", "hydra.run.dir"]),
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
    (["run"], 2, ["'run'", "is a run directory", "eval, resume, reproduce"], _finished),
    (["eval", "run", "data.shotss=3"], 2, ["data.shotss", "did you mean shots?"], _finished),
    (["eval", "run", "meta_steps=9"], 2, ["meta_steps=9", "no effect"], _finished),
    (["eval", "run", "test_tasks=1"], 2, ["1", "test_tasks", "at least 2"], _finished),
    (["eval", "run", "data=tabular"], 2, ["'data=tabular'", "values, not choices"], _finished),
    (["eval", "run", "-m"], 2, ["-m"], _finished),
    (["eval", "run", "+algo.x=1"], 2, ["+algo.x=1", "key of the saved config"], _finished),
    (["eval", "run", "model.hidden=[9]"], 4, ["checkpoint", "another learner"], _finished),
    (["eval", "run", "device=cuda"], 2, ["'cuda'", "device=cpu"], _finished),
    (["resume", "run", "seed=5"], 4, ["different in seed", "choose another"], _finished),
    (["resume", "run", "meta_steps=1"], 2, ["1", "meta_steps", "at least 4"], _finished),
    (["resume", "run", "meta_steps=x"], 2, ["'x'", "meta_steps", "an integer"], _finished),
    (["reproduce", "run", "seed=5"], 2, ["'seed=5'", "changes nothing but"], _finished),
    (["-cp", "run"], 4, ["run/config.yaml", "not found"], _finished),
    (["-cp", "run/.hydra", "algo=fomaml"], 2, ["values, not choices", "algo.key=value"], _finished),
    (["-cp", "run/.hydra", "seed=x"], 2, ["'x'", "seed"], _finished),
    (["seed=3", "hydra.run.dir=run"], 4, ["different in", "seed", "another hydra.run.dir"], _finished),
    (["eval", "run"], 4, ["no run there"], _without(".hydra")),
    (["eval", "run"], 4, ["no run there"], _without(".hydra/config.yaml")),
    (["eval", "run"], 4, ["checkpoints are gone"], _without("checkpoints")),
    (["resume", "run", "meta_steps=9"], 4, ["checkpoints are gone"], _without("checkpoints/*.json")),
    (["eval", "run"], 4, ["step-00000004.pt", "No such file"], _without("checkpoints/*.pt")),
    (["reproduce", "run"], 4, ["metrics.jsonl", "No such file"], _without("metrics.jsonl")),
    (["reproduce", "run"], 4, ["summary.json", "missing", "metarun resume run"], _without("summary.json")),
    (["reproduce", "run"], 4, ["not finished", "metarun resume run"], _without("status.json")),
    (["reproduce", "run"], 4, ["environment.json", "missing", "restore it"], _without("environment.json")),
    (["resume", "run", "meta_steps=9"], 4, ["status.json", "remove it"], _empty("status.json")),
    (["resume", ""], 2, ["metarun resume DIR"], _finished),
    (["hydra.run.dir="], 2, ["'hydra.run.dir='", "a folder"]),
    (["hydra.run.dir=null"], 2, ["'hydra.run.dir=null'", "a folder"]),
    (["-m", "seed=1,2", "hydra.sweep.dir=''"], 2, ["hydra.sweep.dir", "a folder"]),
    (["hydra.run.dir=run"], 4, ["run: holds ", "but no run", "choose another"], _without(".hydra")),
    (["hydra.run.dir=run"], 4, ["status.json", "but no run"], _spoiled(lambda run: (shutil.rmtree(run), run.mkdir(), (run / "status.json").write_text('{"a": 1}')))),
    (["algo._target_=os.system"], 2, ["'os/system'", "METARUN_TRUST", "my_algo,my_data"], _environment(METARUN_TRUST="os/system")),
    (["algo._target_=os.system"], 2, ["'..'", "METARUN_TRUST"], _environment(METARUN_TRUST=" ,..")),
    (["eval", "run"], 4, ["config.yaml", "a mapping"], _empty(".hydra/config.yaml")),
    (["resume", "run"], 4, ["status.json", "cannot be read"], _empty("status.json")),
    (["resume", "run"], 4, ["summary.json", "cannot be read"], _empty("summary.json")),
    (["reproduce", "run"], 4, ["environment.json", "cannot be read"], _empty("environment.json")),
    (OMNIGLOT, 3, ["/nowhere", "METARUN_DATA"], _environment(METARUN_DATA="/nowhere")),
    (OMNIGLOT, 3, ["/etc/passwd", "METARUN_DATA"], _environment(METARUN_DATA="/etc/passwd")),
    (OMNIGLOT, 3, ["/dev/null/x", "METARUN_DATA"], _environment(METARUN_DATA="", XDG_CACHE_HOME="/dev/null/x")),
    (["algo._target_=nowhere.Mine"], 2, ["'nowhere.Mine'", "No module"], _environment(METARUN_TRUST="nowhere")),
    (["algo._target_=os.system"], 2, ["'os.system'", "METARUN_TRUST"], _environment(METARUN_TRUST="")),
    (["algo._target_=os.system"], 2, ["'os.system'", "expected a class"], _environment(METARUN_TRUST="os")),
    (["algo._target_=subprocess.Popen"], 2, ["METARUN_TRUST"], _environment(METARUN_TRUST="sub,process")),
    (["device=cuda"], 2, ["'cuda'", "found none"], _environment(CUDA_VISIBLE_DEVICES="")),
    (["algo=mamll"], 2, ["'mamll'", "did you mean maml?"], _environment(HYDRA_FULL_ERROR="1")),
    ([], 2, ["'many'", "WORLD_SIZE", "an integer"], _environment(WORLD_SIZE="many")),
    ([], 2, ["'-1'", "RANK", "unset it"], _environment(RANK="-1")),
    ([], 130, ["SIGINT: stopped"], _signal(signal.SIGINT, BUILDING)),
    ([], 143, ["SIGTERM: stopped"], _signal(signal.SIGTERM, BUILDING)),
    ([], 138, ["SIGUSR1: stopped"], _signal(signal.SIGUSR1, BUILDING)),
    ([], 129, ["SIGHUP: stopped"], _signal(signal.SIGHUP, BUILDING)),
    (["-cp", "run/.hydra"], 4, ["run/.hydra/config.yaml", "'os.mkdir'"], _spoiled(lambda run: (run / ".hydra/config.yaml").write_text((run / ".hydra/config.yaml").read_text().replace("metarun.models.MLP", "os.mkdir")))),
    (["-m", "seed=1,2"], 143, ["SIGTERM: stopped"], _signal(signal.SIGTERM, BUILDING)),
    (["eval", "run"], 143, ["SIGTERM: stopped"], _signal(signal.SIGTERM, BUILDING)),
    (["reproduce", "run"], 143, ["SIGTERM: stopped"], _signal(signal.SIGTERM, BUILDING)),
    (["resume", "run", "meta_steps=9"], 143, ["SIGTERM", "metarun resume run"], _signal(signal.SIGTERM, BUILDING)),
    (["hydra.launcher._target_=os.system", "-m", "seed=1,2"], 2, ["hydra.launcher._target_", "METARUN_TRUST"]),
    (["hydra.launcher._target_=hydra_plugins.no", "-m", "seed=1,2"], 2, ["hydra_plugins.no"]),
    (["+hydra.callbacks.x._target_=logging.FileHandler"], 2, ["hydra.callbacks.x._target_", "METARUN_TRUST"]),
    (["hydra.sweep.dir=/dev/null/x", "-m", "seed=1,2"], 4, ["/dev/null/x", "hydra.sweep.dir"]),
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


def test_output_that_cannot_be_written_is_said(tmp_path):
    words = [sys.executable, "-m", "metarun", *QUICK, "hydra.run.dir=run"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 4
    assert "output: No space left on device (stdout)" in _one_line(done.stderr.splitlines()[-1])
    assert "Error executing job" not in done.stderr
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "done", "only its words are lost"


def test_a_daemon_without_streams_and_a_notebooks_settings_are_fine(tmp_path):
    command = f"{sys.executable} -m metarun {' '.join(QUICK)} hydra.run.dir=run >&- 2>&- <&-; echo $? > code"
    notebook = {**os.environ, "MPLBACKEND": "module://a_backend_that_is_not_there"}
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=notebook)
    assert (tmp_path / "code").read_text() == "0\n"
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "done"
    assert (tmp_path / "run/curve.png").exists()


def test_a_terminal_without_the_signs_shows_others(tmp_path):
    words = [sys.executable, "-m", "metarun", *QUICK, "hydra.run.dir=run"]
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, cwd=tmp_path, env=plain, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b" ? " in done.stdout


def test_help_behind_a_setting_is_metaruns_and_leaves_nothing(metarun):
    code, out, _ = metarun("seed=1", "--help")
    assert code == 0
    assert "metarun reproduce DIR" in out
    assert not list(Path().iterdir())


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


def test_a_wrong_name_is_reported_without_torch_in_under_a_second(tmp_path):
    code = "import sys\nfrom metarun.cli import main\ncode = main()\nassert 'torch' not in sys.modules\nsys.exit(code)"
    for words in (["algo=mamll"], ["seed=x"], ["algo._target_=os.system"]):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert time.monotonic() - began < 5, "a second on a machine that does nothing else"


def test_help_names_every_choice_and_verb(metarun):
    code, out, _ = metarun("--help")
    assert code == 0
    for word in (
        "maml",
        "fomaml",
        "omniglot",
        "sinusoid",
        "tabular",
        "conv4",
        "eval",
        "resume",
        "reproduce",
        "Exit codes",
    ):
        assert word in out
    assert metarun("--version")[1].startswith("metarun ")


def test_every_choice_composes(metarun):
    conf = ROOT / "conf"
    for group in ("algo", "data", "device", "engine", "experiment", "sweep"):
        for file in (conf / group).glob("*.yaml"):
            code, out, err = metarun(f"{group}={file.stem}", "--cfg", "job", "--resolve")
            assert code == 0, err
            config = yaml.safe_load(out)
            assert {"seed", "algo", "data", "model", "device", "engine"} <= set(config)
    assert not list(Path().iterdir())


def test_experiments_name_the_command_that_runs_them():
    for file in (ROOT / "conf" / "experiment").glob("*.yaml"):
        assert file.read_text().splitlines()[1] == f"# metarun experiment={file.stem}"


def test_a_learner_chosen_by_hand_wins(metarun):
    for words, target in (
        (["data=omniglot"], "Conv4"),
        (["data=omniglot", "model=mlp"], "MLP"),
        (["model=mlp", "data=omniglot"], "MLP"),
    ):
        assert f"_target_: metarun.models.{target}" in metarun(*words, "--cfg", "job")[1]


def test_choices_of_ones_own_from_another_folder(metarun):
    Path("mine/algo").mkdir(parents=True)
    Path("mine/algo/slow.yaml").write_text("defaults: [maml, _self_]\ninner_lr: 0.001\n")
    code, out, err = metarun("-cd", "mine", "algo=slow", "hydra.run.dir=run", *QUICK)
    assert code == 0, err
    assert "rate 0.001," in out


def test_options_may_stand_anywhere(metarun):
    code, _, err = metarun("seed=1,2", "-m", *QUICK)
    assert code == 0, err
    assert len(list(Path("outputs/sweeps").glob("*/*/*/summary.json"))) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [1]\nb: *a\n", "alias"),
        ("seed: !!python/object/apply:os.system ['touch owned']\n", "tag"),
        ("seed: ${oc.env:HOME}\n", "interpolation"),
        ("[" * 100 + "]" * 100, "nesting"),
        ("hydra: {run: {dir: x}}\n", "'hydra'"),
        ("defaults: [algo: maml]\n", "'defaults'"),
        ("- 1\n", "mapping"),
        ("seed: [\n", "cannot be read"),
        ("x" * 2_000_000, "over 64000"),
        ("\x00\x01", "cannot be read"),
    ],
)
@pytest.mark.parametrize("verb", [["eval", "run"], ["resume", "run"], ["reproduce", "run"], ["-cp", "run/.hydra"]])
def test_a_strangers_config_is_read_as_plain_data(metarun, text, said, verb):
    Path("run/.hydra").mkdir(parents=True)
    Path("run/.hydra/config.yaml").write_text(text)
    before = sorted(map(str, Path().rglob("*")))
    code, _, err = metarun(*verb)
    assert code in (2, 4)
    assert said in _one_line(err)
    assert sorted(map(str, Path().rglob("*"))) == before


MARK = "open('owned', 'w').close()"


def test_a_strangers_environment_is_plain_data(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
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


def test_nothing_else_in_a_strangers_config_folder_is_used(metarun):
    """Hydra would compose this launcher instead of its own, and call back whatever it names."""
    metarun(*QUICK, "hydra.run.dir=run")
    evil = Path("run/.hydra/hydra/launcher/basic.yaml")
    evil.parent.mkdir(parents=True)
    evil.write_text("# @package hydra.callbacks.evil\n_target_: logging.FileHandler\nfilename: owned\n")
    code, _, err = metarun("-cp", "run/.hydra", "seed=2", "hydra.run.dir=again")
    assert code == 0, err
    assert not Path("owned").exists()


def test_trusting_one_package_trusts_nothing_beside_it(metarun, monkeypatch):
    monkeypatch.setenv("METARUN_TRUST", "mine")
    Path("hydra_plugins").mkdir()
    Path("hydra_plugins/evil.py").write_text(MARK)
    Path("other.py").write_text(MARK)
    Path("mine.py").write_text(
        "from metarun.algos.maml import MAML\nclass Mine(MAML): pass\nfrom subprocess import Popen\n"
    )
    Path("choices/algo").mkdir(parents=True)
    Path("choices/algo/mine.yaml").write_text("_target_: mine.Mine\n")
    code, _, err = metarun("-cd", "choices", "algo=mine", "hydra.run.dir=run", *QUICK)
    assert code == 0, err
    for target in ("other.Mine", "mine.Popen", "mine.Nothing"):
        code, _, err = metarun(f"algo._target_={target}")
        assert code == 2, err
    assert not Path("owned").exists()


def test_settings_of_a_saved_config_are_checked_by_type(metarun):
    metarun(*QUICK, "hydra.run.dir=run")
    path = Path("run/.hydra/config.yaml")
    path.write_text(path.read_text().replace("first_order: false", "first_order: 'no'"))
    code, _, err = metarun("-cp", "run/.hydra", "hydra.run.dir=again")
    assert code == 2
    assert "true or false" in _one_line(err)


def test_runs_as_a_module_and_in_a_pipe_without_a_bar(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "metarun", *QUICK, "hydra.run.dir=run"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "step 2/4" in done.stderr
    assert "\r" not in done.stderr
    assert "95% interval over 6 tasks" in done.stdout


def test_on_a_terminal_there_is_a_bar(tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "metarun", *QUICK, "hydra.run.dir=run"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(main, 4096):
            shown += part
    except OSError:
        pass  # the terminal ends with the process
    os.close(main)
    assert process.wait() == 0
    assert b"4/4" in shown
    assert b"loss=" in shown
    assert b"val=" in shown
    assert b"step 2/4" not in shown, "no log lines beside the bar"


def test_a_task_source_of_ones_own_needs_no_protocol_but_a_learner(metarun, monkeypatch):
    """A source from outside: its config may say nothing of training, and what is missing is said in a line."""
    Path("choices/data").mkdir(parents=True)
    monkeypatch.setenv("METARUN_TRUST", "own_data")
    Path("own_data.py").write_text("from metarun.data.tabular import Tabular\n\n\nclass Own(Tabular):\n    pass\n")
    own = "_target_: own_data.Own\nways: 2\n"
    Path("choices/data/flat.yaml").write_text(own)
    Path("choices/data/whole.yaml").write_text(
        "# @package _global_\ndefaults: [{/model: mlp}, _self_]\ndata:\n  " + own.replace("\n", "\n  ")
    )
    for words in (["data=flat"], ["data=flat", "model=mlp"]):
        code, _, err = metarun("-cd", "choices", *words, *QUICK)
        assert code == 2
        assert "begin its YAML file as conf/data/tabular.yaml begins" in _one_line(err)
    code, out, err = metarun("-cd", "choices", "data=whole", *QUICK)
    assert code == 0, err
    assert "SGD, rate 0.01, steps: 1 in training, 5 in test" in out, "what conf/config.yaml suggests"


def test_a_number_that_was_saved_as_an_integer_may_become_another():
    plain = compose(["algo.meta_lr=1"]).plain()
    assert with_changes(plain, ["algo.meta_lr=0.5"]).algo["meta_lr"] == 0.5
    with pytest.raises(UsageError, match=r"2\.5 \(test_tasks\): expected an integer"):
        with_changes(plain, ["test_tasks=2.5"])
