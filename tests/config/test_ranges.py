"""Constructors refuse what is out of range, and name the setting, the value and the rule; they are called as a run does."""

import pytest

from metarun.config.compose import compose
from metarun.config.edit import with_changes
from metarun.errors import UsageError
from metarun.run.build import build_experiment

pytestmark = pytest.mark.usefixtures("data_root")  # whose number of classes some settings have to fit

BAD = [
    ("algo.inner_lr=-1", "-1 (algo.inner_lr): expected a finite number above 0"),
    ("algo.inner_lr=0", "0 (algo.inner_lr)"),
    ("algo.inner_lr=nan", "nan (algo.inner_lr)"),
    ("algo.inner_lr=inf", "inf (algo.inner_lr)"),
    ("algo.inner_lr=null", "null (algo.inner_lr): expected a value"),
    ("algo.inner_steps=0", "(algo.inner_steps): expected an integer of at least 1"),
    ("algo.meta_lr=-0.1", "-0.1 (algo.meta_lr)"),
    ("algo.meta_lr_schedule=step", "'step' (algo.meta_lr_schedule): expected one of constant, linear, cosine"),
    ("algo.meta_clip=0", "0 (algo.meta_clip): expected a finite number above 0"),
    ("algo.inner_parameters=neck", "'neck' (algo.inner_parameters): expected one of weights, head, body, all"),
    ("algo.inner_optimizer=rmsprop", "expected one of sgd, adam"),
    ("algo.inner_betas=[0.9,0.99]", "(algo.inner_betas): expected null with inner_optimizer=sgd"),
    ("algo.inner_loss_reduction=per_shots", "did you mean per_shot?"),
    ("+algo.meta_optimizer.lr=0.5", "0.5 (algo.meta_optimizer.lr)|set algo.meta_lr"),
    ("+algo.meta_optimizer.momentumm=0.9", "momentumm|Adam"),
    ("algo.meta_optimizer._target_=torch.optim.SGD +algo.meta_optimizer.betas=[0,1]", "betas|SGD"),
    ("+algo.meta_optimizer.betas=[2,3]", "algo.meta_optimizer|beta"),
    ("algo.meta_optimizer._target_=torch.optim.LBFGS", "LBFGS (algo.meta_optimizer)|Adam"),
    ("algo.meta_optimizer._target_=torch.optim.SparseAdam", "SparseAdam (algo.meta_optimizer)|Adam"),
    ("algo._target_=metarun.algos.maml.Mamll", "Mamll"),
    (
        "algo.meta_optimizer._target_=metarun.config.targets.PathFinder",
        "(algo.meta_optimizer._target_)|define themselves",
    ),
    ("algo=meta_sgd algo.eval_inner_steps=-1", "-1 (algo.eval_inner_steps): expected an integer of at least 0"),
    ("algo=protonet", "sinusoid|a source of classes|no meaning in regression"),
    ("algo=oracle data=tabular", "tabular|tell the truth|data=sinusoid"),
    ("algo=averaging algo.regularize=l2", "'l2' (algo.regularize): expected none with algo.average=predictions"),
    ("algo=averaging algo.average=parameters algo.learners=3", "5 (meta_batch): expected 3, as algo.learners"),
    ("algo=averaging algo.average=parameters algo.regularize=mean", "(algo.strength)|above 0"),
    ("algo=averaging algo.average=parameters algo.inner_steps=1", "(algo.inner_steps)|null"),
    ("algo=maml_pp algo.eval_inner_steps=3", "3 (algo.eval_inner_steps)|5, as inner_steps"),
    ("algo=maml_pp algo.multi_step_until=15", "15 (algo.multi_step_until)|from 0 to 1"),
    ("algo=reptile algo.inner_batch=0", "0 (algo.inner_batch)|at least 1"),
    ("algo=reptile algo.inner_betas=[0,1]", "(algo.inner_betas)|[0, 1)"),
    ("algo.inner_optimizer=adam algo.inner_betas=[a,b]", "(algo.inner_betas): expected two numbers in [0, 1)"),
    ("algo=imaml algo.damping=inf", "(algo.damping): expected a finite number of at least 0"),
    ("algo=reptile +algo.meta_optimizer.momentum=0.9", "0.9 (algo.meta_optimizer.momentum): expected 0 with"),
    ("algo=reptile +algo.meta_optimizer.weight_decay=0.1", "0.1 (algo.meta_optimizer.weight_decay): expected 0 with"),
    ("algo=reptile algo.inner_optimizer=sgd", "(algo.inner_betas)|null with inner_optimizer=sgd"),
    ("algo=meta_lstm algo.feedback=raw", "'raw' (algo.feedback): expected one of logits, gates"),
    ("algo=lstm_generator algo.generate=body", "'body' (algo.generate): expected one of all, head"),
    ("algo=lstm_generator algo.hidden=0", "0 (algo.hidden)|at least 1"),
    ("algo=lstm_generator algo.hidden=100000000", "algo: LSTMGenerator cannot be built|memory"),
    ("data.shots=0", "0 (data.shots)|at least 1"),
    ("data=sequences data.length=1", "1 (data.length)|at least 2"),
    ("data=tabular data.teacher=forest", "'forest' (data.teacher): expected one of linear, mlp, tree, noise"),
    ("data=omniglot data.ways=21", "21 (data.ways): expected at most 20, the classes of split val"),
    ("data=omniglot data.ways=1101", "1101 (data.ways): expected at most 44, the classes of split train"),
    ("data=omniglot algo=protonet data.ways=21", "21 (data.ways)|split val; set data.eval_ways"),
    ("data=omniglot algo=protonet data.eval_ways=21", "21 (data.eval_ways): expected at most 20|split val"),
    (
        "data=omniglot data.eval_ways=7",
        "7 (data.eval_ways): expected 5, as in training, for MAML|protonet, or algo.head=shared",
    ),
    (
        "data=tabular algo=scratch data.eval_ways=3",
        "3 (data.eval_ways): expected 2, as data.ways, for From scratch has no training|other numbers data.ways=3",
    ),
    ("data=sequences data.eval_ways=1", "1 (data.eval_ways)|at least 2"),
    ("data.train_tasks=0", "0 (data.train_tasks)|at least 1"),
    ("data.train_tasks=2.5", "2.5 (data.train_tasks)|an integer"),
    (
        "algo=averaging algo.average=parameters data.train_tasks=9",
        "9 (data.train_tasks): expected null|5 training tasks",
    ),
    ("data=omniglot data.ways=1", "1 (data.ways)|at least 2"),
    ("data=omniglot data.shots=15 data.queries=6", "21|at most 20"),
    ("data=omniglot data.shots=11", "22|at most 20"),
    ("data=omniglot data.rotations=al", "did you mean all?"),
    ("data=sequences model=conv4", "model|images|model=mlp"),
    ("data=omniglot model=resnet12 model.widths=[8]", "[8] (model.widths): expected four numbers"),
    ("model=lstm", "model|sequences: length, symbols"),
    ("model=conv4", "model|images|model=mlp"),
    ("model.hidden=[0]", "(model.hidden)|at least 1"),
    ("model.norm=batch", "'batch' (model.norm): expected one of none, transductive, support"),
    ("device.threads=0", "0 (device.threads)|at least 1"),
    ("device.threads=100000", "(device.threads)|at most 1024"),
    ("device=cpu device.tf32=true", "(device.tf32)|CPU"),
    ("engine.chunk=0", "0 (engine.chunk): expected auto, or an integer"),
    ("engine.chunk=many", "'many' (engine.chunk)"),
    ("engine.checkpoint_inner=2", "(engine.checkpoint_inner): expected true or false"),
    ("engine.autocast=float16", "'float16' (engine.autocast)|bfloat16"),
    ("engine=compile engine.compile_from=-1", "-1 (engine.compile_from)"),
    ("engine=compile engine.compile_from=0 algo=maml_pp", "compile (engine)|vmap|MAML++"),
]


def _compose(words):
    """The config of these words; choices are composed once, and values set in what they gave."""
    if any(word[0] == "+" or word.partition("=")[0].endswith("_target_") for word in words):
        return compose(words)
    choices = [word for word in words if "." not in word]
    return with_changes(compose(choices).plain(), [word for word in words if word not in choices])


@pytest.mark.parametrize(("words", "said"), BAD, ids=lambda value: value if "=" in value.partition(" ")[0] else "")
def test_what_is_out_of_range_is_refused(words, said):
    with pytest.raises(UsageError) as error:
        build_experiment(_compose(words.split()))
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in said.split("|")), error.value


def test_the_gpu_has_to_be_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match=r"'cuda'.*device=cpu"):
        build_experiment(compose(["device=cuda"]))


def test_data_with_too_few_classes_for_three_splits_is_not_told_to_split_them_otherwise(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{n},{n % 7}\n" for n in range(140)))
    words = ["data=table", f"data.file={tmp_path / 't.csv'}", "data.target=y", "algo=maml"]
    with pytest.raises(
        UsageError, match=r"3 \(data.ways\): .*; lower it: three splits take 9 classes, and the data has 7$"
    ):
        build_experiment(compose([*words, "data.ways=3"]))
    with pytest.raises(UsageError, match=r"2 \(data.ways\): .* split test; set data.splits$"):
        build_experiment(compose([*words, "data.ways=2", "data.splits=[0.6,0.3,0.1]"]))
    with pytest.raises(UsageError, match="x is of numbers: to predict them, give the column that names the tasks"):
        (tmp_path / "n.csv").write_text("y,x\n" + "".join(f"{n},{n / 3}\n" for n in range(40)))
        build_experiment(compose(["data=table", f"data.file={tmp_path / 'n.csv'}", "data.target=x", "data.ways=2"]))
    test = [*words[:-1], "data.splits=[0.2,0.1,0.7]"]  # of a trained run, of which there is one split
    with pytest.raises(UsageError, match=r"8 \(data.ways\): .* split test; take data of more classes$"):
        build_experiment(compose([*test, "algo=maml", "data.ways=8"]), splits=["test"])
    with pytest.raises(UsageError, match=r"8 \(data.eval_ways\): .* split test; lower it$"):
        build_experiment(compose([*test, "algo=protonet", "data.ways=2", "data.eval_ways=8"]), splits=["test"])


def test_ways_are_limited_by_the_splits_that_are_used(monkeypatch):
    monkeypatch.setattr("metarun.data.omniglot.Omniglot.split_sizes", {"train": 44, "val": 20, "test": 30})
    words = ["data=omniglot", "algo=protonet", "data.ways=44", "data.eval_ways=30"]
    assert build_experiment(compose(words), ("test",)).source.outputs == 44
    with pytest.raises(UsageError, match=r"30 \(data.eval_ways\): expected at most 20, the classes of split val"):
        build_experiment(compose(words))
