"""A process that has trained forks: its child trains and predicts on several threads, with the same bits."""

from __future__ import annotations

import os

import pytest
from child import printed, python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# `work` gives the losses of a training on a team of two, and predictions. `answer` runs a function in a forked child
# and gives what it returned; a child that takes too long is ended.
SETUP = """
import os, pickle, select, signal, sys, threading, warnings
import numpy as np
import pybackprop as pb
from pybackprop import _core, nn, optim

warnings.simplefilter("error")
warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)  # Python's own, of any fork beside threads

rng = np.random.default_rng(0)
X, y = rng.normal(size=(256, 40)).astype("float32"), rng.normal(size=(256, 3)).astype("float32")

def new_trainer(threads=2):
    model = nn.Sequential(nn.Linear(40, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 3))
    own = np.random.default_rng(1)  # that of the process serves all its threads
    model.load_state_dict({k: own.normal(size=v.shape) * 0.1 for k, v in model.state_dict().items()})
    return pb.Trainer(model, loss=nn.MSELoss(), optimizer=optim.Adam(lr=0.01), seed=0, threads=threads)

def work(trainer=None):
    trainer = trainer or new_trainer()
    losses = trainer.fit(X, y, epochs=3, batch_size=32, verbose=0).history["loss"]
    losses.append(trainer.step(X, y))
    assert trainer._step.stepper.threads_used == 2, trainer._step.stepper.threads_used
    return losses, trainer.predict(X).tobytes(), trainer.model(X).tobytes()

def answer(function, seconds=40):
    r, w = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.write(w, pickle.dumps(function()))
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    os.close(w)
    ready = select.select([r], [], [], seconds)[0]
    if not ready:
        os.kill(child, signal.SIGKILL)
    parts = []
    while part := os.read(r, 65536):
        parts.append(part)
    os.close(r)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not ready:
        return "hangs"
    return pickle.loads(b"".join(parts)) if status == 0 else f"ends with {status}"
"""


def test_child_of_a_process_that_has_trained():
    code = """
wanted = work()
before = _core.thread_config()["forked"]
print(answer(work) == wanted, work() == wanted, answer(work) == wanted)
print(before, answer(lambda: (_core.thread_config()["forked"], len(os.listdir("/proc/self/task")))))
print(answer(lambda: (work() == wanted, len(os.listdir("/proc/self/task")))))
"""
    assert printed(SETUP + code).splitlines() == ["True True True", "False (True, 1)", "(True, 2)"]


def test_training_goes_on_in_the_child():
    code = """
trainer = new_trainer()
first = work(trainer)
there = answer(lambda: work(trainer))
print(there == work(trainer), there != first)
"""
    assert printed(SETUP + code) == "True True"


def test_teams_grow_shrink_and_serve_many_callers_in_the_child():
    code = """
from concurrent.futures import ThreadPoolExecutor
def train(threads):
    t = new_trainer(threads)
    losses = [t.step(X, y) for _ in range(30)]
    assert t._step.stepper.threads_used == threads
    return losses
wanted = train(1)
def child():
    alone = [train(n) == wanted for n in (2, 4, 3, 1, 2)]
    with ThreadPoolExecutor(4) as pool:
        return alone + [losses == wanted for losses in pool.map(train, [2, 3] * 4)]
print(set(answer(child)))
"""
    assert printed(SETUP + code) == "{True}"


def test_children_of_children_and_their_ends():
    """Each generation has threads of its own, and an interpreter that ends in the usual way waits for no others."""
    code = """
wanted = work()
for generation in range(3):
    child = os.fork()
    if child:  # the parent ends in the usual way, when its child has
        signal.alarm(40)  # it must not wait for ever
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.exit(status)
    if generation != 1:  # the second child does nothing itself, and has what its parent left
        assert work() == wanted
print("done")
"""
    assert printed(SETUP + code) == "done"


def test_child_loads_the_library_after_the_fork():
    """The parent may have used OpenMP for something else, so nothing is taken from it."""
    code = """
import os, sys
assert "pybackprop" not in sys.modules
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
from pybackprop import _core
print(_core.thread_config()["forked"])
"""
    assert printed(code) == "True"


def test_child_without_threads_to_be_had():
    """Where the system gives no more threads the child computes on one."""
    code = """
import resource
wanted = work()
def child():
    os.setgid(65534); os.setuid(65534)  # root has no limit
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    try:
        threading.Thread(target=int).start()
        return "no limit here"
    except RuntimeError:
        pass
    t = new_trainer()
    losses = t.fit(X, y, epochs=3, batch_size=32, verbose=0).history["loss"]
    return losses == wanted[0][:3], t._step.stepper.threads_used
print(answer(child))
"""
    if os.geteuid() != 0:
        code = code.replace("os.setgid(65534); os.setuid(65534)", "pass")
    got = printed(SETUP + code)
    if got == "no limit here":
        pytest.skip("the number of threads cannot be limited here")
    assert got == "(True, 1)"


class TestWhileThreadsAreInside:
    """Locks that other threads held at the fork are free in the child."""

    @pytest.mark.parametrize("rule", ["optim.Adam(lr=0.01)", "optim.SGD(lr=0.01)"])  # with and without state
    def test_a_training_that_another_thread_was_in_the_middle_of(self, rule, tmp_path):
        code = """
inside, go = threading.Event(), threading.Event()
class Waits(pb.Function):
    armed = False
    def shape(self, x):
        return x
    def forward(self, x):
        if Waits.armed:
            inside.set()
            assert go.wait(50)
        return x
    def backward(self, inputs, outputs, d_outputs):
        return d_outputs[0]

class Model(nn.Module):
    def __init__(self):
        self.a, self.b = nn.Linear(40, 64), nn.Linear(64, 3)
    def forward(self, x):
        return self.b(Waits()(self.a(x)).tanh())

pb.manual_seed(0)
trainer = pb.Trainer(Model(), loss=nn.MSELoss(), optimizer=RULE, seed=0, threads=2)
trainer.step(X, y)
trainer.save_checkpoint(PATH)
wanted, other = trainer.step(X, y), work()
trainer.load_checkpoint(PATH)
Waits.armed = True
thread = threading.Thread(target=trainer.step, args=(X, y))
thread.start()
assert inside.wait(20)

def refused(call):
    try:
        call()
    except RuntimeError as e:
        return "half a step: load a checkpoint into it, or fork between steps" in str(e)
    return False

def child():
    Waits.armed = False
    seen = [work() == other]  # another training has nothing to do with it
    seen += [refused(lambda: trainer.step(X, y)), refused(lambda: trainer.fit(X, y, verbose=0))]
    seen += [refused(lambda: trainer.save_checkpoint(PATH + "x"))]
    trainer.predict(X)
    trainer.load_checkpoint(PATH)
    seen += [trainer.step(X, y) == wanted]
    return seen

print(answer(child))
go.set()
thread.join()
print(trainer.step(X, y) != wanted)  # in the parent everything went on
"""
        head = f"PATH, RULE = {str(tmp_path / 'c')!r}, {rule}\n"
        assert printed(SETUP + head + code).splitlines() == ["[True, True, True, True, True]", "True"]

    def test_teams_at_work_in_other_threads(self):
        code = """
wanted = work()
stop = threading.Event()
def train():
    t = new_trainer()
    while not stop.is_set():
        t.fit(X, y, epochs=50, batch_size=32, verbose=0)
def predict():
    t = new_trainer(3)
    while not stop.is_set():
        assert t.predict(X).shape == (256, 3)
threads = [threading.Thread(target=f) for f in (train, predict, train)]
for t in threads:
    t.start()
try:
    print({answer(work) == wanted for _ in range(8)})
finally:
    stop.set()
for t in threads:
    t.join()
print(work() == wanted)
"""
        assert printed(SETUP + code).splitlines() == ["{True}", "True"]

    def test_the_program_cache(self):
        code = """
from pybackprop._cache import LRU
inside, go = threading.Event(), threading.Event()
def size_of(entry):
    inside.set()
    assert go.wait(50)
    return 1
cache = LRU(2, 2, size_of)
thread = threading.Thread(target=cache.put, args=("a", 1))  # it holds the lock and waits
thread.start()
assert inside.wait(20)
print(answer(lambda: cache.get("b"), seconds=10))
go.set()
thread.join()
print(cache.get("a"))
"""
        assert printed(SETUP + code).splitlines() == ["None", "1"]

    def test_the_generator_of_initial_weights(self):
        code = """
from pybackprop.random import generator
def draw():
    return nn.Linear(3, 4).weight.numpy().tobytes()
pb.manual_seed(5)
draw()
wanted = draw()
pb.manual_seed(5)
draw()
inside, go = threading.Event(), threading.Event()
def hold():
    with generator().bit_generator.lock:  # as one that draws does
        inside.set()
        go.wait(50)
thread = threading.Thread(target=hold)
thread.start()
assert inside.wait(20)
print(answer(draw, seconds=10) == wanted)
go.set()
thread.join()
print(draw() == wanted)
"""
        assert printed(SETUP + code).splitlines() == ["True", "True"]


def test_a_step_that_forks_in_one_of_its_own_ops(tmp_path):
    """The forking thread holds the step's lock and goes on in both processes."""
    code = """
class Forks(pb.Function):
    armed, child = False, None
    def shape(self, x):
        return x
    def forward(self, x):
        if Forks.armed:
            Forks.armed = False
            Forks.child = os.fork()
            try:
                trainer.step(X, y)
            except ValueError as e:
                assert "cannot be used from inside its own ops" in str(e)
            else:
                os.abort()
        return x
    def backward(self, inputs, outputs, d_outputs):
        return d_outputs[0]

class Model(nn.Module):
    def __init__(self):
        self.a, self.b = nn.Linear(40, 64), nn.Linear(64, 3)
    def forward(self, x):
        return self.b(Forks()(self.a(x)).tanh())

pb.manual_seed(0)
trainer = pb.Trainer(Model(), loss=nn.MSELoss(), optimizer=optim.Adam(lr=0.01), seed=0, threads=2)
trainer.step(X, y)
trainer.save_checkpoint(PATH)
wanted = [trainer.step(X, y) for _ in range(3)]
trainer.load_checkpoint(PATH)
Forks.armed = True
signal.alarm(40)
losses = [trainer.step(X, y)]
if Forks.child == 0:
    signal.alarm(40)
losses += [trainer.step(X, y) for _ in range(2)]
if Forks.child == 0:
    os._exit(losses != wanted)
print(os.waitstatus_to_exitcode(os.waitpid(Forks.child, 0)[1]), losses == wanted)
"""
    assert printed(SETUP + f"PATH = {str(tmp_path / 'c')!r}\n" + code) == "0 True"


def test_fork_while_rows_are_read_ahead(tmp_path):
    """A callback forks in the middle of a fit from a memory map; parent and child both finish it."""
    code = """
wide = np.lib.format.open_memmap(PATH, mode="w+", dtype="float32", shape=(512, 2048))
wide[:] = rng.normal(size=wide.shape)
wide = np.load(PATH, mmap_mode="r")
target = rng.integers(0, 3, 512)

class Fork(pb.Callback):
    child = None
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3 and Fork.child is None:
            before = len(os.listdir("/proc/self/task"))
            Fork.child = os.fork()
            if Fork.child == 0:
                signal.alarm(40)
            assert Fork.child == 0 or before > 1  # the reader is there

def train(*callbacks):
    pb.manual_seed(0)
    model = nn.Sequential(nn.Linear(2048, 16), nn.ReLU(), nn.Linear(16, 3))
    t = pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(lr=0.01), seed=0, threads=2)
    history = t.fit(wide, target, epochs=2, batch_size=64, verbose=0, callbacks=callbacks)
    return history.history["loss"], t.predict(wide).tobytes()

wanted = train()
losses = train(Fork())
if Fork.child == 0:
    os._exit(losses != wanted or train() != wanted)
print(os.waitstatus_to_exitcode(os.waitpid(Fork.child, 0)[1]), losses == wanted)
"""
    assert printed(SETUP + f"PATH = {str(tmp_path / 'x.npy')!r}\n" + code) == "0 True"


SCRIPT = """
import multiprocessing, sys, warnings
if __name__ == "__main__":
    wanted = work()
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        results = pool.map_async(job, range(4)).get(50)
    print({r == wanted for r in results}, work() == wanted)
"""
JOBS = "\ndef job(_):\n    return work()\n"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method, tmp_path):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    script = tmp_path / "script.py"
    script.write_text(SETUP + JOBS + SCRIPT)
    done = python(str(script), method)
    assert (done.returncode, done.stdout.strip()) == (0, "{True} True"), done.stderr


JOBLIB = """
if __name__ == "__main__":
    import joblib
    wanted = work()
    def shared(_):
        return _core.thread_config()["threads"], _core.thread_config()["reason"], os.environ.get("OMP_NUM_THREADS")
    with joblib.parallel_config(backend=sys.argv[1]):
        results = joblib.Parallel(n_jobs=2, timeout=50)(joblib.delayed(job)(i) for i in range(4))
        seen = joblib.Parallel(n_jobs=2, timeout=50)(joblib.delayed(shared)(i) for i in range(4))
    print({r == wanted for r in results}, work() == wanted)
    print(sorted(set(seen)))
    if sys.argv[1] == "loky":
        with joblib.parallel_config(backend="loky", inner_max_num_threads=3):
            print(set(joblib.Parallel(n_jobs=2, timeout=50)(joblib.delayed(shared)(i) for i in range(4))))
"""


class TestJoblib:
    @pytest.fixture(autouse=True)
    def installed(self):
        self.joblib = pytest.importorskip("joblib", reason="joblib is not installed")

    def run(self, backend: str, folder) -> list[str]:
        script = folder / "script.py"
        script.write_text(SETUP + JOBS + JOBLIB)
        done = python(str(script), backend, OMP_NUM_THREADS=None)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()

    def test_loky(self, tmp_path):
        """joblib gives each worker process its share of the CPUs in the OpenMP variable."""
        same, shares, inner = self.run("loky", tmp_path)
        share = max(1, self.joblib.cpu_count() // 2)
        assert same == "{True} True"
        assert shares == f"[({share}, 'OMP_NUM_THREADS', '{share}')]"
        assert inner == "{(3, 'OMP_NUM_THREADS', '3')}"

    @pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
    def test_others(self, backend, tmp_path):
        assert self.run(backend, tmp_path)[0] == "{True} True"
