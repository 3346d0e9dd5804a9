"""Checkpoints are whole or absent: damaged by bits, pages and cuts; killed, unplugged and out of space while saving."""

import contextlib
import errno
import hashlib
import io
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
from helpers.disk import ERRORS, AfterPowerLoss, Disk, PowerCut

from metarun import files
from metarun.errors import DivergedError, RunDirError
from metarun.storage import checkpoint
from metarun.storage.records import Manifest

QUICK = ("meta_steps=6", "val_every=2", "val_tasks=4", "test_tasks=6", "log_every=1", "checkpoint_every=2")
SMALL = ("model.hidden=[8]", "data.shots=2", "data.queries=2", "meta_batch=4", "device.threads=1")


def _payload(step, seed=0, size=2000):
    generator = torch.Generator().manual_seed(1000 * seed + step)
    weights = {name: torch.randn(size, generator=generator) for name in "ab"}
    return {
        **{"step": step, "meta": weights, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}},
        **{
            "best": [step, 0.5],
            "chunks": [3, 4],
            "metrics": "",
            "config": f"run {seed}",
            "split_hash": "none",
            "frozen": "",
        },
    }


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return a == b


def _is_whole(payload):
    return _same(payload, _payload(payload["step"], size=len(payload["meta"]["a"])))


def _saved(folder, *steps, size=2000, seed=0):
    folder.parent.mkdir(exist_ok=True)
    for step in steps:
        checkpoint.save(folder, step, _payload(step, seed, size), keep=set())
    return folder


def _refused_or_right(folder, step):
    """Loads a checkpoint that may be damaged; True if it was refused."""
    try:
        payload = checkpoint.load(folder, step, "run 0")
    except RunDirError:
        return True
    assert _same(payload, _payload(step)), "loaded wrong"
    return False


@pytest.mark.parametrize("bits", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_flipped_bit_is_loaded_as_another_number(tmp_path, bits):
    """Bits in the checkpoint and in its manifest; torch alone loads nearly all of them as wrong numbers."""
    folder = _saved(tmp_path / "checkpoints", 1, 2)
    draw = random.Random(0)
    unnoticed_by_torch = refused = 0
    for number in range(bits):
        path = folder / ("step-00000002.json" if number % 10 == 0 else "step-00000002.pt")
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        good = path.read_bytes()
        path.write_bytes(content)
        refused += _refused_or_right(folder, 2)
        if path.suffix == ".pt" and number % 20 == 1:
            with contextlib.suppress(Exception):
                unnoticed_by_torch += not _same(torch.load(path, weights_only=True), _payload(2))
        assert checkpoint.newest(folder)["step"] in (1, 2)
        path.write_bytes(good)
    assert refused > 0.95 * bits, "but for bits in a manifest that do not change its meaning"
    assert unnoticed_by_torch > 0.6 * bits / 20, "this test would find it if the digest were not compared"


def test_no_zeroed_page_or_truncation_is_loaded(tmp_path):
    """50 pages of 512 bytes set to zero, and 50 cuts."""
    folder = _saved(tmp_path / "checkpoints", 1, 2, size=20000)
    path = folder / "step-00000002.pt"
    good = path.read_bytes()
    pages = [at for at in range(0, len(good), 512) if any(good[at : at + 512])]
    draw = random.Random(1)
    damaged = [good[:at] + bytes(len(good[at : at + 512])) + good[at + 512 :] for at in draw.sample(pages, 50)]
    damaged += [good[: draw.randrange(len(good))] for _ in range(50)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(RunDirError, match="damaged"):
            checkpoint.load(folder, 2)
    assert checkpoint.newest(folder)["step"] == 1


def test_checkpoints_without_any_manifest_are_refused_but_for_a_first_one(tmp_path):
    _saved(tmp_path, 1, 2)
    (tmp_path / "step-00000001.json").unlink()
    (tmp_path / "step-00000002.json").unlink()
    with pytest.raises(RunDirError, match="without their manifests"):
        checkpoint.newest(tmp_path)
    (tmp_path / "step-00000001.pt").unlink()
    assert checkpoint.newest(tmp_path) is None, "killed before its first manifest was written"


def test_no_swapped_file_is_loaded(tmp_path):
    """50 files in the place of others: another step's, another run's, the manifest's, and pairs of them."""
    folder = _saved(tmp_path / "checkpoints", 1, 2)
    other = _saved(tmp_path / "other", 1, 2, seed=1)
    parts = [
        source / f"step-0000000{step}.{kind}"
        for source in (folder, other)
        for step in (1, 2)
        for kind in ("pt", "json")
    ]
    contents = {part: part.read_bytes() for part in parts}
    swaps = 0
    for step in (1, 2):
        pt, manifest = folder / f"step-0000000{step}.pt", folder / f"step-0000000{step}.json"
        for new_pt in parts:
            for new_manifest in parts:
                own = (new_pt, new_manifest) == (pt, manifest)
                if own or (swaps >= 25 * step):
                    continue
                swaps += 1
                pt.write_bytes(contents[new_pt])
                manifest.write_bytes(contents[new_manifest])
                assert _refused_or_right(folder, step)
        pt.write_bytes(contents[pt])
        manifest.write_bytes(contents[manifest])
    assert swaps == 50


@pytest.mark.parametrize("steps", [(), *(pytest.param(s, marks=pytest.mark.slow) for s in ((1,), (1, 2))), (1, 2, 3)])
def test_a_kill_at_any_call_of_a_save_leaves_a_whole_checkpoint(tmp_path, monkeypatch, steps):
    """A process of its own dies by SIGKILL before each open, write, fsync, rename and removal, and half way in a write."""
    before, after = max(steps, default=0), max(steps, default=0) + 1
    at, kills = 0, 0
    while True:
        folder = _saved(tmp_path / str(at) / "checkpoints", *steps)
        child = os.fork()
        if child == 0:
            try:
                Disk(tmp_path, at).install(monkeypatch)
                checkpoint.save(folder, after, _payload(after), keep=set())
            except PowerCut:
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        found = checkpoint.newest(folder)
        assert _is_whole(found) if found else not steps
        assert (found or {"step": 0})["step"] in (before, after)
        checkpoint.save(folder, after + 1, _payload(after + 1), keep=set())
        assert checkpoint.newest(folder)["step"] == after + 1, "and saving goes on"
        if status == 0:
            assert found["step"] == after
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
        at += 1
    assert kills >= 13, "two files: make, write, sync, rename, sync the folder; and what is removed"


@pytest.mark.parametrize("names_kept", [False, True])
def test_power_lost_at_any_call_of_a_save_leaves_a_whole_checkpoint(tmp_path, monkeypatch, names_kept):
    """Unlike a kill, this also loses what was written and not synced."""
    folder = _saved(tmp_path / "checkpoints", 1, 2)
    disk, lost = Disk(tmp_path), AfterPowerLoss
    start = {path: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        disk.install(patch)
        checkpoint.save(folder, 3, _payload(3), keep=set())
    shutil.rmtree(folder)
    folder.mkdir()
    for path, content in start.items():
        path.write_bytes(content)
    found = []
    for cut in range(len(disk.calls) + 1):
        left = tmp_path / f"left {cut}"
        left.mkdir()
        lost(folder).replay(disk.calls[:cut]).lay_out(left, folder, names_kept)
        payload = checkpoint.newest(left)
        assert _is_whole(payload)
        found.append(payload["step"])
    assert found == sorted(found)
    assert {found[0], found[-1]} == {2, 3}


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", ERRORS)
def test_an_error_at_any_call_of_a_save_is_raised_and_the_last_checkpoint_is_intact(
    tmp_path, monkeypatch, error, lasting
):
    at = 0
    while True:
        folder = _saved(tmp_path / str(at) / "checkpoints", 1, 2)
        with monkeypatch.context() as patch:
            disk = Disk(tmp_path, at, ERRORS[error], lasting).install(patch)
            try:
                checkpoint.save(folder, 3, _payload(3), keep=set())
                raised = None
            except OSError as told:
                raised = told
        if not disk.happened:
            break
        found = checkpoint.newest(folder)
        assert _is_whole(found)
        if raised is None:
            assert found["step"] == 3, "what failed was not needed: to remove what is old, and works on a full disk"
        else:
            assert raised.errno == ERRORS[error]
            assert "step-0000000" in str(raised.filename), "which file"
            assert not list(folder.glob(".*")) or error == "EACCES", "no temporary file is left"
        at += 1
    assert at >= 12


def test_at_least_two_checkpoints_and_the_best_are_kept(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in range(1, 8):
        checkpoint.save(folder, step, _payload(step), keep={2})
    assert checkpoint.steps(folder) == [7, 6, 2]
    assert {path.name for path in folder.iterdir()} == {
        f"step-0000000{s}.{kind}" for s in (7, 6, 2) for kind in ("pt", "json")
    }


@pytest.mark.parametrize("stops", [(12, 22), pytest.param(tuple(range(6, 28, 3)), marks=pytest.mark.slow)])
def test_what_a_kept_checkpoint_needs_is_kept_too(metarun, stops):
    """Whichever one of the last two is damaged, the other is enough: its best is there. And the damaged one goes."""
    words = (*QUICK[1:], *SMALL, "algo.meta_lr=0.1")
    assert metarun(*words, "meta_steps=30", "hydra.run.dir=whole")[0] == 0
    whole = _result("whole")
    passed_over, bests = 0, set()
    for stop in stops:
        assert metarun(*words, f"meta_steps={stop}", "hydra.run.dir=run")[0] == 0
        Path("run/summary.json").unlink()
        newest, before = checkpoint.steps(Path("run/checkpoints"))[:2]
        path = Path(f"run/checkpoints/step-{newest:08d}.pt")
        path.write_bytes(path.read_bytes()[:-1])
        bests.add(checkpoint.load(Path("run/checkpoints"), before)["best"][0] == before)
        code, _, err = metarun("resume", "run", "meta_steps=30")
        assert code == 0, err
        assert f"step-{newest:08d}.pt: damaged" in err
        passed_over += f"passed over, for the checkpoint of outer step {before}" in err
        for step in checkpoint.steps(Path("run/checkpoints")):
            checkpoint.load(Path("run/checkpoints"), step)
        assert [line for line in Path("run/metrics.jsonl").read_text().splitlines() if '"train"' in line] == [
            line for line in Path("whole/metrics.jsonl").read_text().splitlines() if '"train"' in line
        ]
        assert _result("run")[1] == whole[1]
        shutil.rmtree("run")
    assert passed_over == len(stops)
    assert bests == {True, False}, "both cases came up"


def _run_on_a_failing_disk(metarun, monkeypatch, at, error, lasting):
    """Starts a run on a disk that fails at a call; returns the disk, the exit code and what was said."""
    with monkeypatch.context() as patch:
        disk = Disk(Path("run"), at, error, lasting).install(patch)
        try:
            code, _, err = metarun(*QUICK, *SMALL, "hydra.run.dir=run")
        except PowerCut:
            code, err = -9, ""
    return disk, code, err


def _whole_run(metarun):
    assert metarun(*QUICK, *SMALL, "hydra.run.dir=whole")[0] == 0
    return _result("whole")


def _result(run):
    weights = checkpoint.newest(Path(run) / "checkpoints")["meta"]
    return Path(run, "metrics.jsonl").read_bytes(), {name: value.numpy().tobytes() for name, value in weights.items()}


def _at_every_call(metarun, monkeypatch, error, lasting, first, stride):
    whole, at, failed = _whole_run(metarun), first, 0
    while True:
        shutil.rmtree("run", ignore_errors=True)
        disk, code, err = _run_on_a_failing_disk(metarun, monkeypatch, at, error, lasting)
        if not disk.happened:
            assert code == 0
            return failed
        if error is not None and code != 0:
            line = err.splitlines()[-1]
            assert code == 4, err
            assert line.startswith("metarun: error: ")
            assert os.strerror(error) in line
            assert str(Path("run").resolve()) in line or "run" in line
            assert "Traceback" not in err
        failed += code != 0
        code, _, err = metarun(*QUICK, *SMALL, "hydra.run.dir=run")  # the same command goes on
        assert code == 0, (at, err)
        assert _result("run") == whole, f"after call {at}"
        at += stride


# The default tests take a few calls of a run; the slow ones take one in four, where a save has thirteen.
@pytest.mark.parametrize(("first", "stride"), [(3, 47), pytest.param(0, 4, marks=pytest.mark.slow)])
def test_a_run_killed_at_a_call_goes_on_as_if_nothing_had_happened(metarun, monkeypatch, first, stride):
    assert _at_every_call(metarun, monkeypatch, None, False, first, stride) >= 100 // stride - 2


@pytest.mark.parametrize(
    ("error", "lasting", "first", "stride"),
    [
        ("ENOSPC", True, 1, 51),
        pytest.param("ENOSPC", True, 0, 5, marks=pytest.mark.slow),
        pytest.param("EACCES", False, 2, 9, marks=pytest.mark.slow),
    ],
)
def test_a_run_on_a_failing_disk_says_so_and_goes_on_later(metarun, monkeypatch, error, lasting, first, stride):
    assert _at_every_call(metarun, monkeypatch, ERRORS[error], lasting, first, stride) >= 90 // stride - 2


class _Harmful:
    """A pickle of this makes a folder when it is read."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


def _with(**changes):
    return lambda payload: {**payload, **changes}


def _weights(change):
    return lambda payload: {**payload, "meta": {name: change(value) for name, value in payload["meta"].items()}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda payload: _Harmful(), "not a checkpoint"),
        (_with(metrics=_Harmful()), "not a checkpoint"),
        (lambda payload: [1, 2], "not a checkpoint"),
        (lambda payload: {}, "not a checkpoint"),
        (_with(more=1), "not a checkpoint"),
        (_with(chunks=[0, -1]), "not a checkpoint"),
        (_with(chunks=[3]), "not a checkpoint"),
        (_with(best=["1", 0.1]), "not a checkpoint"),
        (_with(metrics=b""), "not a checkpoint"),
        (_weights(str), "not a checkpoint"),
        (_weights(lambda value: torch.empty(value.shape, device="meta")), "not a checkpoint"),
        (_weights(lambda value: value * float("nan")), "not finite"),
        (_with(optimizer={"x": float("inf")}), "not finite"),
        (_with(best=[2, float("nan")]), "not finite"),
        (_with(config="run 1"), "another run"),
        (_with(step=3), "another run or step"),
    ],
)
def test_what_someone_meant_to_be_taken_for_a_checkpoint_is_refused(tmp_path, monkeypatch, change, said):
    """With a manifest that matches, as only someone who means it would write it; and no code runs."""
    monkeypatch.chdir(tmp_path)
    folder = _saved(tmp_path / "checkpoints", 2)
    buffer = io.BytesIO()
    torch.save(change(_payload(2)), buffer)
    _replace(folder / "step-00000002.pt", buffer.getvalue())
    with pytest.raises(RunDirError, match=said) as refused:
        checkpoint.load(folder, 2, "run 0")
    assert "\n" not in str(refused.value)
    with pytest.raises(RunDirError, match=said):
        checkpoint.newest(folder, "run 0")
    assert not Path("owned").exists()


def _replace(path, content):
    path.write_bytes(content)
    path.with_suffix(".json").write_bytes(
        Manifest(step=2, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()).to_json()
    )


@pytest.mark.parametrize(
    "content",
    [b"", random.Random(0).randbytes(5000), b"\x80\x02cposix\nmkdir\nX\x05\x00\x00\x00owned\x85R."],
    ids=["empty", "noise", "an old pickle"],
)
def test_what_is_no_archive_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    folder = _saved(tmp_path / "checkpoints", 2)
    _replace(folder / "step-00000002.pt", content)
    with pytest.raises(RunDirError, match="not a checkpoint"):
        checkpoint.load(folder, 2)
    assert not Path("owned").exists()


def _sparse(path):
    with open(path, "wb") as file:
        file.truncate(10**11)


@pytest.mark.parametrize("suffix", ["pt", "json"])
@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        Path.mkdir,
        _sparse,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.write_text("[" * 900),
    ],
    ids=["pipe", "folder", "huge", "link", "deep"],
)
def test_no_file_holds_up_a_reader(tmp_path, make, suffix):
    folder = _saved(tmp_path / "checkpoints", 1, 2)
    path = folder / f"step-00000002.{suffix}"
    path.unlink()
    make(path)
    with pytest.raises(RunDirError, match=r"cannot be read|damaged"):
        checkpoint.load(folder, 2)
    assert checkpoint.newest(folder)["step"] == 1


def test_the_newest_is_passed_over_where_its_best_is_damaged(tmp_path, caplog):
    """It could not be tested: the run would end without a result after it had trained on."""
    folder = tmp_path / "checkpoints"
    for step, best in ((1, 1), (2, 2), (3, 2)):
        checkpoint.save(folder, step, {**_payload(step), "best": [best, 0.1]}, keep={1, 2})
    assert checkpoint.newest(folder)["step"] == 3
    path = folder / "step-00000002.pt"
    path.write_bytes(path.read_bytes()[:-1])
    assert checkpoint.newest(folder)["step"] == 1
    assert caplog.text.count("passed over, for the checkpoint of outer step 1") == 2


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EACCES, "no"), MemoryError()]
)
def test_a_checkpoint_that_cannot_be_read_now_is_not_passed_over(tmp_path, monkeypatch, error):
    """A run that went on from an older one would remove it."""

    def fail(*_):
        raise error

    folder = _saved(tmp_path / "checkpoints", 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(*((checkpoint, "_unpack") if isinstance(error, MemoryError) else (files, "read")), fail)
        with pytest.raises(type(error)):
            checkpoint.newest(folder)
    assert checkpoint.newest(folder)["step"] == 2


def test_checkpoints_that_were_passed_over_do_not_count_as_the_last_ones(tmp_path):
    """Left there, two of them would be the newest two, and the sound one be removed at the next save."""
    folder = tmp_path / "checkpoints"
    for step in (1, 2, 3):
        checkpoint.save(folder, step, _payload(step), keep={1, 2})
    checkpoint.drop_after(folder, 1)
    assert {path.name for path in folder.iterdir()} == {"step-00000001.pt", "step-00000001.json"}


def test_a_run_that_goes_on_drops_what_it_has_passed_over(metarun, monkeypatch, finished):
    def train(*_):
        raise DivergedError("it has begun")

    shutil.copytree(finished, "run")
    newest, before = checkpoint.steps(Path("run/checkpoints"))[:2]
    path = Path(f"run/checkpoints/step-{newest:08d}.pt")
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr("metarun.run.session.Session.train", train)
    code, _, err = metarun("resume", "run", "meta_steps=9")
    assert code == 5, err
    assert f"passed over, for the checkpoint of outer step {before}" in err
    assert checkpoint.steps(Path("run/checkpoints"))[0] == before
    assert not path.exists()


def test_a_best_that_is_not_there_is_no_best(tmp_path, caplog):
    folder = _saved(tmp_path / "checkpoints", 1)
    checkpoint.save(folder, 2, {**_payload(2), "best": [3, 0.1]}, keep=set())
    assert checkpoint.newest(folder)["step"] == 1
    assert "passed over, for the checkpoint of outer step 1" in caplog.text
    shutil.rmtree(folder)
    folder.touch()
    assert checkpoint.newest(folder) is None
