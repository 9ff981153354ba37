"""Checkpoints of long runs: killed at any moment, asked to end, disks that are full, files that are damaged."""

import ast
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import nn, optim
from pybackprop.io import atomic, load_file, save_file
from pybackprop.training.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint, latest_checkpoint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def make(*callbacks, **options):
    pb.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
    return pb.Trainer(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.AdamW(lr=optim.Warmup(optim.CosineLR(0.02), steps=5)),
        metrics=["accuracy"],
        callbacks=callbacks,
        **options,
    )


def bits(trainer):
    state = trainer._step.state_dict()["state"]
    flat = {f"{key}.{name}": array.tobytes() for key, arrays in state.items() for name, array in arrays.items()}
    return flat | {name: array.tobytes() for name, array in trainer.model.state_dict().items()}


RUN = dict(epochs=4, batch_size=8, validation_split=0.25, verbose=0)

# A run that its parent kills, asks to end, or lets finish.
CHILD = """
import json, sys, time
import numpy as np
import pybackprop as pb
from pybackprop import nn, optim
from pybackprop.training.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint, latest_checkpoint
from pybackprop.training import run as looks

folder, pause, every = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
looks._SECONDS = 0.002  # instead of 0.05: many returns to Python in a short epoch
rng = np.random.default_rng(0)
X = rng.normal(size=(4000, 20)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] + rng.normal(size=4000) > 0).astype(np.int64)
pb.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 256),
                      nn.ReLU(), nn.Linear(256, 2))
trainer = pb.Trainer(model, loss=nn.CrossEntropyLoss(), metrics=["accuracy"],
                     optimizer=optim.AdamW(lr=optim.Warmup(optim.CosineLR(0.01), steps=50)))
path = folder + "/run-{epoch:03d}-{batch:04d}.safetensors"
callbacks = [ModelCheckpoint(path, save_freq=every, keep=3), EarlyStopping(patience=2, restore_best_weights=True)]
if pause:
    def slowly(batches, logs):
        print(batches, flush=True)
        time.sleep(pause)

    callbacks.append(LambdaCallback(on_train_chunk_end=slowly))
found = latest_checkpoint(path)
if found:
    trainer.load_checkpoint(found)
print("go", flush=True)
history = trainer.fit(X, Y, epochs=12, batch_size=25, validation_split=0.2, verbose=0, callbacks=callbacks)
pb.save(model, folder + "/end.safetensors", {"history": json.dumps([history.history, history.epoch, history.stopped])})
"""


def child(folder, pause=0.0, every=20):
    command = [sys.executable, "-P", "-c", CHILD, str(folder), str(pause), str(every)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return process


def finish(folder):
    process = child(folder)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return (folder / "end.safetensors").read_bytes()


def killed_and_resumed(tmp_path, times):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = finish(whole)
    assert load_file(whole / "end.safetensors")[1]["history"].endswith('"callback"]')  # early stopping took part
    rng = random.Random(5)
    kills = within = 0
    while kills < times:
        process = child(cut, 0.04)
        assert process.stdout.readline() == "go\n"
        # Every other one while a file is being written, or just after; the others at any time.
        before = set(os.listdir(cut))
        saving = kills % 2 == 0
        deadline = time.monotonic() + (2 if saving else rng.uniform(0.01, min(0.4, 5 / times)))
        while process.poll() is None and time.monotonic() < deadline:
            if not saving:
                time.sleep(0.0005)
            elif any(name.startswith(atomic._PREFIX) for name in set(os.listdir(cut)) - before):
                break
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
        names = os.listdir(cut)
        within += any(name.startswith(".") for name in set(names) - before)
        files = [name for name in names if name.startswith("run-")]
        assert len(files) <= 4  # three, and one that was to go
        for name in files:
            load_file(cut / name)
    assert kills == times, f"the run was over after {kills}"
    assert finish(cut) == expected
    assert len(list(cut.iterdir())) == 3 + 1, "what killed writers left is deleted"
    return within


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    killed_and_resumed(tmp_path, 4)


@pytest.mark.slow
def test_a_run_killed_thirty_times_resumes_to_the_same_bits(tmp_path):
    assert killed_and_resumed(tmp_path, 30) > 5, "few kills hit a file being written"


def test_sigterm_saves_at_the_end_of_the_batch_and_ends_the_process(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = finish(whole)
    for times in range(1, 4):
        process = child(cut, 0.02, every=10**9)  # nothing else writes
        assert process.stdout.readline() == "go\n"
        process.stdout.readline()  # some batches are done
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGTERM, errors
        assert len(list(cut.iterdir())) == times  # each is further than the last
    assert finish(cut) == expected


TERMINATED = """
import os, signal, sys, numpy as np, pybackprop as pb
from pybackprop import nn, optim
from pybackprop.training.callbacks import LambdaCallback, ModelCheckpoint
import threading
kind, path = sys.argv[1:]
def end(*_):
    signal.raise_signal(signal.SIGTERM)
    print("after", flush=True)
callbacks = [LambdaCallback(on_train_batch_end=end)]
if kind != "alone":
    callbacks.append(ModelCheckpoint(path, save_best_only=kind == "best", monitor="loss"))
if kind == "handler":
    signal.signal(signal.SIGTERM, lambda *_: print("handler", flush=True))
trainer = pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1), callbacks=callbacks)
if kind == "failing":
    os.mkdir(path)
trainer.fit(np.ones((8, 2)), np.ones((8, 1)), epochs=2, batch_size=4, verbose=0)
print("done")
"""


@pytest.mark.parametrize(
    ("kind", "code", "printed", "saved"),
    [
        ("alone", -signal.SIGTERM, "", False),  # nothing to save: at once
        ("plain", -signal.SIGTERM, "after\n", True),
        ("best", -signal.SIGTERM, "after\n", False),
        ("failing", -signal.SIGTERM, "after\n", False),
        ("handler", 0, "handler\nafter\n" * 4 + "done\n", True),  # the program's own comes first
    ],
)
def test_who_answers_sigterm(tmp_path, kind, code, printed, saved):
    path = tmp_path / "c"
    done = subprocess.run(
        [sys.executable, "-P", "-c", TERMINATED, kind, str(path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (code, printed), done.stderr
    assert path.is_file() == saved
    assert ("it is a folder" in done.stderr) == (kind == "failing")


@pytest.mark.parametrize("limited", [False, True])
def test_sigterm_during_validation_does_not_wait_for_its_end(tmp_path, limited):
    path = tmp_path / "c"

    class Ends(ModelCheckpoint):
        def on_train_end(self, logs=None):
            raise RuntimeError("not reached by the signal")

    trainer = make(Ends(path))
    calls = []
    results = trainer._evaluator.results

    def slow(data, kinds, rows, check):
        def counted():
            calls.append(1)
            if len(calls) == 1:
                trainer._run._interrupt.terminated = True
            check()

        return results(data, kinds, 4, counted)

    trainer._evaluator.results = slow
    ended = []
    from pybackprop.training import interrupt

    original, interrupt.Interruptible._end = interrupt.Interruptible._end, staticmethod(lambda: ended.append(1))
    try:
        with pytest.raises(RuntimeError, match="not reached"):
            if limited:  # validation of an epoch that was cut short
                slowly = LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.05))
                trainer.fit(X, Y, **RUN, time_limit=0.1, callbacks=[slowly])
            else:
                trainer.fit(X, Y, **RUN)
    finally:
        interrupt.Interruptible._end = original
    assert len(calls) == 1 and ended
    whole, resumed = make(), make()
    whole.fit(X, Y, **RUN)
    resumed.load_checkpoint(path)
    assert resumed.epoch == 0 and (0 < resumed.cut.position < 9 if limited else resumed.cut.position == 9)
    resumed.fit(X, Y, **RUN)
    assert bits(resumed) == bits(whole) and resumed.history.history == whole.history.history


# Which files


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("each_batch", [False, True])
def test_files_within_epochs_finish_the_run(tmp_path, monkeypatch, accumulate, each_batch):
    monkeypatch.setattr("pybackprop.training.run._SECONDS", 0.0)
    path = tmp_path / "deep" / "{epoch}-{batch}-{step}"
    more = [LambdaCallback(on_train_batch_end=lambda batch, logs: None)] if each_batch else []
    whole = make(ModelCheckpoint(path, save_freq=4), *more, accumulate=accumulate)
    whole.fit(X, Y, **RUN)
    files = sorted((tmp_path / "deep").iterdir())
    assert len(files) >= 6
    for file in files:
        epoch, batch, step = map(int, file.name.split("-"))
        resumed = make(accumulate=accumulate)
        resumed.load_checkpoint(file)
        assert (resumed.epoch, resumed.cut.position, resumed._step.steps) == (epoch - 1, batch, step)
        resumed.fit(X, Y, **RUN)
        assert bits(resumed) == bits(whole) and resumed.history.history == whole.history.history


def test_only_the_newest_are_kept_also_after_a_resume(tmp_path):
    path = tmp_path / "run-{epoch:02d}"
    other = tmp_path / "run-99x"
    other.write_text("another's")
    save = ModelCheckpoint(path, keep=2)
    make(save).fit(X, Y, **RUN)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run-03", "run-04", "run-99x"]
    assert [os.path.basename(p) for p in save.files] == ["run-03", "run-04"]
    other.unlink()
    assert latest_checkpoint(path) == str(tmp_path / "run-04")
    again = make()
    again.load_checkpoint(latest_checkpoint(path))
    again.fit(X, Y, **RUN | dict(epochs=6), callbacks=[ModelCheckpoint(path, keep=2)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run-05", "run-06"]
    assert latest_checkpoint(tmp_path / "none-{epoch}") is None is latest_checkpoint(tmp_path / "no" / "{epoch}")


def test_a_file_does_not_choose_what_is_deleted(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    save = ModelCheckpoint(tmp_path / "run-{epoch}", keep=1)
    save.load_state_dict({"best": None, "files": [str(precious), str(tmp_path / "run-1" / ".." / "precious")]})
    make(save).fit(X, Y, **RUN)
    assert precious.exists()


def test_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("pybackprop.training.run._SECONDS", 0.0)
    now = [0.0]
    monkeypatch.setattr("pybackprop.training.model_checkpoint.time.monotonic", lambda: now[0])

    class Clock(pb.Callback):
        def on_train_chunk_end(self, batches, logs=None):
            now[0] += 1

    make(Clock(), ModelCheckpoint(tmp_path / "{step}", save_freq=10**6, seconds=5)).fit(X, Y, **RUN)
    assert sorted(int(p.name) for p in tmp_path.iterdir()) == [5, 10, 15, 20, 25, 30, 35]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(path="a", save_freq="batch"), "save_freq must be 'epoch' or a number of batches"),
        (dict(path="a", save_freq=0), "save_freq must be"),
        (dict(path="a", seconds=0), "seconds must be above 0"),
        (dict(path="a", keep=2), "keep=2 needs a path that names its files apart"),
        (dict(path="{epoch}", keep=0), "keep must be a number of files"),
        (dict(path="a", save_best_only=True, seconds=3), "save_best_only compares epochs"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        ModelCheckpoint(**options)


@pytest.mark.parametrize("epochs", [30, 60])
def test_a_run_that_was_stopped_is_over_unless_it_gets_more_epochs(tmp_path, epochs):
    def early():
        return EarlyStopping("loss", patience=1, min_delta=10.0)

    whole = make(ModelCheckpoint(tmp_path / "c"), early())
    whole.fit(X, Y, **RUN | dict(epochs=30))
    assert whole.history.stopped == "callback" and whole.epoch == 2
    resumed = make(early())
    resumed.load_checkpoint(tmp_path / "c")
    resumed.fit(X, Y, **RUN | dict(epochs=epochs))
    assert resumed.history.stopped == "callback" and resumed.epoch == (2 if epochs == 30 else 3)
    assert epochs == 60 or bits(resumed) == bits(whole)


def test_a_run_that_a_callback_without_memory_stopped_goes_on(tmp_path):
    """The number of epochs says what is left, whether the file was written in the run or after it."""
    whole = make()
    whole.fit(X, Y, **RUN)
    first = make(ModelCheckpoint(tmp_path / "within"))
    stop = LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(first, "stop_training", epoch == 1))
    first.fit(X, Y, **RUN, callbacks=[stop])
    first.save_checkpoint(tmp_path / "after")
    for name in ("within", "after"):
        resumed = make()
        resumed.load_checkpoint(tmp_path / name)
        assert resumed.epoch == 2
        resumed.fit(X, Y, **RUN)
        assert bits(resumed) == bits(whole) and resumed.history.history == whole.history.history


# Disks


def limited(tmp_path, prepare):
    """What a child prints that saves a larger checkpoint over a good one after ``prepare``."""
    code = f"""
import os, resource, signal, sys, numpy as np, pybackprop as pb
from pybackprop import nn, optim
def trainer(epochs):
    t = pb.Trainer(nn.Linear(400, 100), loss=nn.MSELoss(), optimizer=optim.Adam(lr=0.1),
                   callbacks=[pb.callbacks.ModelCheckpoint({str(tmp_path / "c")!r})])
    return t
t = trainer(1)
t.fit(np.ones((4, 400)), np.ones((4, 100)), verbose=0)
good = open({str(tmp_path / "c")!r}, "rb").read()
{prepare}
try:
    t.fit(np.ones((4, 400)), np.ones((4, 100)), verbose=0)
except OSError as error:
    print(type(error).__name__, error)
assert open({str(tmp_path / "c")!r}, "rb").read() == good
assert os.listdir({str(tmp_path)!r}) == ["c"], os.listdir({str(tmp_path)!r})
print(t.epoch, len(t.history.epoch))
trainer(1).load_checkpoint({str(tmp_path / "c")!r})
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_that_may_not_grow(tmp_path):
    said = limited(tmp_path, "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))")
    assert said.startswith(
        "OSError [Errno 27] File too large while writing (nothing is lost: the former file is as it "
    )
    assert f"'{tmp_path / 'c'}'" in said and said.endswith("\n2 1\n")


def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount one")
    try:
        said = limited(disk, "")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert said.startswith("OSError [Errno 28] No space left on device while writing (nothing is lost")


def test_a_folder_that_is_read_only(tmp_path):
    prepare = f"os.chmod({str(tmp_path)!r}, 0o555)\nif os.getuid() == 0: os.setuid(65534)"
    os.chmod(tmp_path, 0o755)
    for parent in list(tmp_path.parents)[:2]:  # pytest's own are private
        os.chmod(parent, 0o755)
    try:
        said = limited(tmp_path, prepare)
    finally:
        os.chmod(tmp_path, 0o755)
    assert said.startswith("PermissionError [Errno 13] Permission denied while writing (nothing is lost")


def test_abandoned_files_are_deleted_and_those_of_live_writers_are_not(tmp_path):
    abandoned = tmp_path / f"{atomic._PREFIX}0{atomic._SUFFIX}"
    abandoned.write_bytes(b"half")
    others = tmp_path / ".other.tmp"
    others.write_bytes(b"another program's")
    file, live = atomic._begin(str(tmp_path))
    with file:
        save_file({"x": np.zeros(3)}, tmp_path / "f")
        assert sorted(os.listdir(tmp_path)) == sorted([os.path.basename(live), ".other.tmp", "f"])
    save_file({"x": np.zeros(3)}, tmp_path / "f")
    assert sorted(os.listdir(tmp_path)) == [".other.tmp", "f"]


def test_a_writer_whose_new_file_is_taken_for_abandoned_begins_another(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    lock, taken = atomic._lock, []

    def late(file, wait=False):  # between its making and its lock another writer looks at it
        if not taken:
            other = open(file.name, "rb")  # noqa: SIM115 - closed later, by the timer
            fcntl.flock(other, fcntl.LOCK_EX)
            taken.append(threading.Timer(0.05, lambda: (os.unlink(file.name), other.close())))
            taken[0].start()
        return lock(file, wait)

    monkeypatch.setattr(atomic, "_lock", late)
    save_file({"x": np.zeros(3)}, tmp_path / "f")
    taken[0].join()
    assert os.listdir(tmp_path) == ["f"]


def test_writers_of_one_file_at_once(tmp_path):
    code = """
import sys, numpy as np
from pybackprop.io import save_file
for i in range(60):
    save_file({"x": np.full(20_000, float(sys.argv[2]))}, sys.argv[1])
"""
    path = tmp_path / "f"
    writers = [subprocess.Popen([sys.executable, "-P", "-c", code, str(path), str(i)]) for i in range(3)]
    while any(w.poll() is None for w in writers):
        if path.exists():
            x = load_file(path)[0]["x"]
            assert x.shape == (20_000,) and (x == x[0]).all()
    assert [w.wait() for w in writers] == [0, 0, 0]
    assert os.listdir(tmp_path) == ["f"]


def test_data_names_and_folder_reach_the_disk_in_this_order(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def synchronise(descriptor):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", synchronise)
    monkeypatch.setattr(atomic.os, "replace", lambda *a: (done.append("name"), replace(*a)))
    save_file({"x": np.zeros(3)}, tmp_path / "f")
    assert done == ["file", "name", "folder"]


# Damaged files


def damaged(tmp_path, change):
    """A checkpoint whose JSON state and tensors were changed."""
    trainer = make(EarlyStopping("loss", patience=5, restore_best_weights=True))
    trainer.fit(X, Y, **RUN | dict(epochs=1), time_limit=None)
    path = tmp_path / "c"
    trainer.save_checkpoint(path)
    tensors, metadata = load_file(path)
    content = json.loads(metadata["pybackprop.checkpoint"])
    changed = change(content, content["state"], tensors)
    text = changed if isinstance(changed, str) else json.dumps(content)
    save_file(tensors, path, {"pybackprop.checkpoint": text})
    return path


DAMAGE = {
    "not JSON": (lambda c, s, t: "{", "is a damaged checkpoint: Expecting"),
    "deep": (lambda c, s, t: "[" * 100_000, "is a damaged checkpoint: maximum recursion"),
    "a list": (lambda c, s, t: "[]", "of format None"),
    "other format": (lambda c, s, t: c.update(version=2), "of format 2, and this version of pybackprop reads format 1"),
    "no state": (lambda c, s, t: c.pop("state") and None, "state is NoneType, not a dict"),
    "no entry": (lambda c, s, t: s.pop("epoch") and None, "state has no entry 'epoch'"),
    "an unknown entry": (lambda c, s, t: s.update(more=1), "state has an unknown entry 'more'"),
    "negative": (lambda c, s, t: s.update(epoch=-1), "state.epoch is -1, not an integer from 0"),
    "huge": (
        lambda c, s, t: s["optimizer"].update(steps=2**63),
        "state.optimizer.steps is 9223372036854775808, not an integer from 0",
    ),
    "a text for a number": (lambda c, s, t: s["optimizer"].update(lr_factor="1"), "lr_factor is str, not a finite"),
    "infinite": (lambda c, s, t: s["optimizer"].update(lr_factor=1e999), "lr_factor is inf, not a finite number"),
    "a lost tensor": (lambda c, s, t: t.pop(next(k for k in t if "exp_avg" in k)) is None, "there is no tensor 'state"),
    "other rule": (lambda c, s, t: s["optimizer"].update(rule="sgd"), "'sgd', but the optimizer's is 'adamw'"),
    "history": (lambda c, s, t: s["history"]["epoch"].append(1), "has 1 values of 'loss' for 2 epochs"),
    "history text": (lambda c, s, t: s["history"]["history"].update(loss=["a"]), r"history.loss\[0\] is str"),
    "callback": (lambda c, s, t: s["callbacks"][0][1].update(wait="x"), "EarlyStopping cannot take over"),
    "callbacks": (lambda c, s, t: s["callbacks"].append(["x"]), "state.callbacks is not a list of names and states"),
    "schedule": (lambda c, s, t: s["optimizer"].update(lr={"best": 1.0}), "keeps the state"),
    "cut": (lambda c, s, t: s.update(cut={"position": 2}), "state.cut has no entry 'results'"),
    "run": (lambda c, s, t: s["run"].pop("start") is None, "state.run.start is NoneType"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_changes_nothing(tmp_path, name):
    change, words = DAMAGE[name]
    path = damaged(tmp_path, change)
    stopping = EarlyStopping("loss", patience=5)
    trainer = make(stopping)
    trainer.fit(X, Y, **RUN | dict(epochs=2))
    before, callback = bits(trainer), stopping.state_dict()
    history, epoch = dict(trainer.history.history), trainer.epoch
    with pytest.raises(ValueError, match=words) as error:
        trainer.load_checkpoint(path)
    assert "\n" not in str(error.value)
    assert bits(trainer) == before and trainer.history.history == history and trainer.epoch == epoch
    assert stopping.state_dict() == callback
    trainer.fit(X, Y, **RUN | dict(epochs=1))
    assert trainer.epoch == 3


def test_nothing_of_ours_unpickles():
    """No module of the package uses what runs code out of a file."""
    package = Path(pb.__file__).parent
    bad = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    for source in package.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call):
                function = node.func
                called = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
                assert called not in ("eval", "exec", "load_module"), f"{source}: {called}"
                keywords = {k.arg for k in node.keywords}
                assert "allow_pickle" not in keywords or called != "load", source
            assert not any(name.split(".")[0] in bad for name in names), source


def test_memory_of_a_refused_file_is_bounded(tmp_path):
    """A small file that claims to be large is refused in a process that could not hold what it claims."""
    header = {"x": {"dtype": "F32", "shape": [2**33], "data_offsets": [0, 2**35]}}
    text = json.dumps(header).encode()
    path = tmp_path / "f"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    code = f"""
import resource
from pybackprop.io import load_file
used = int(open("/proc/self/statm").read().split()[0]) * {resource.getpagesize()}
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26,) * 2)
try:
    load_file({str(path)!r})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert "ends at byte" in done.stdout, done.stderr
