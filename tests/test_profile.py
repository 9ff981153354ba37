"""Limits and profiles: that the times are plausible, complete, and leave everything as it was."""

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import _core, nn, optim

LEVELS = _core.isa_names()


# Limits


@pytest.mark.parametrize("isa", LEVELS)
def test_arithmetic_has_a_limit_on_every_level(isa):
    rate = _core.measure_fma(1, 0.001, isa=isa)
    assert 1 < rate < 1000
    assert _core.measure_fma(1, 0.001, "float64", isa) < 0.8 * rate


def test_tiles_stay_below_the_limit():
    # Noise from other processes lowers either; the largest tile is close to the limit in any undisturbed millisecond.
    tiles = _core.measure_tiles(0.0005)
    assert len({(rows, vectors) for rows, vectors, _ in tiles}) == len(tiles) > 8
    assert 0.3 < max(rate for _, _, rate in tiles) / _core.measure_fma(1, 0.005) < 1.5


def test_memory_is_faster_in_the_cache():
    small, large = _core.MemorySpan(1 << 16), _core.MemorySpan(1 << 27)
    assert small.bytes == 1 << 16
    assert small.rate(1, 0.005) > large.rate(1, 0.005) > 0.5


def test_bf16_is_measured_where_the_cpu_has_it():
    rate = _core.measure_bf16(1, 0.001)
    assert rate is None or rate > 1
    assert _core.measure_bf16(1, 0.001, LEVELS[0]) is None or "v4" in LEVELS[0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: _core.measure_fma(0), "threads must be at least 1"),
        (lambda: _core.measure_fma(1, 0.0), "seconds must be positive"),
        (lambda: _core.measure_fma(dtype="int64"), "float32"),
        (lambda: _core.MemorySpan(0), "bytes must be at least 1"),
    ],
)
def test_limits_refuse_what_cannot_be_measured(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# Programs


def program(threads):
    graph = _core.Graph()
    weight = _core.Param(np.full((16, 24), 0.1, np.float32), "linear")
    x, w = graph.input((32, 24)), graph.param(weight)
    (y,) = graph.node("linear", [x, w], "layer")
    (z,) = graph.node("tanh", [y])
    (loss,) = graph.node("mean", [z])
    return _core.Program(graph, [loss], loss=loss, wrt=[w], threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_program_times_every_job_of_every_run(threads):
    p, x = program(threads), np.ones((32, 24), np.float32)
    before = p.run((x,))
    jobs, work, wait = p.profile((x,), 20)
    assert work.shape == wait.shape == (20, threads, len(jobs) + 4)
    assert (work >= 0).all() and (wait >= 0).all()
    assert len(jobs) == p.describe().count("phase")
    assert [j["label"] for j in jobs if j["op"] == "linear" and not j["backward"]] == ["layer (linear)"]
    backward = next(j for j in jobs if j["op"] == "linear" and j["backward"])
    assert backward["inputs"] == [(32, 24), (16, 24)] and backward["outputs"] == [(32, 16)]
    assert backward["wanted"] == [False, True] and backward["bytes"] > 4 * 32 * 24
    assert p.threads_used == threads
    after = p.run((x,))
    assert before[0][0] == after[0][0] and (before[1][0] == after[1][0]).all()


def test_a_program_refuses_no_runs():
    with pytest.raises(ValueError, match="runs must be at least 1, got 0"):
        program(1).profile((np.ones((32, 24), np.float32),), 0)


# Trainers


def trainer(**options):
    pb.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(6, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(0.2), nn.LayerNorm(32), nn.Linear(32, 3)
    )
    return pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=0.01), metrics=["accuracy"], **options)


def data(rows=200):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 6)).astype(np.float32), rng.integers(0, 3, rows)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_node_is_listed_and_the_times_add_up(threads):
    X, y = data()
    profile = trainer(threads=threads).profile(X, y, batch_size=50, steps=30)
    names = [row["name"] for row in profile.rows]
    for node in ("linear", "batch_norm", "dropout", "layer_norm", "cross_entropy"):
        assert sum(f"({node})" in name and "backward" not in name for name in names) == (2 if node == "linear" else 1)
        assert any(f"({node}) backward" in name for name in names)
    assert names[-4:] == ["update (adam)", "feeding", "waiting for other threads", "rest"]
    assert profile.threads == threads and profile.steps == 30
    # Medians of parts do not add up to the median of the whole exactly, least of all on a busy machine.
    assert 0.5 < sum(row["share"] for row in profile.rows) < 1.5
    assert all(row["share"] == pytest.approx(row["seconds"] / profile.seconds) for row in profile.rows)
    linear = profile.rows[0]
    assert linear["gflops"] == pytest.approx(2 * 50 * 6 * 32 / linear["seconds"] * 1e-9)
    assert linear["limit"] == pytest.approx(linear["gflops"] / profile.limits["gflops"])
    text = str(profile)
    assert all(name in text for name in names) and "GFLOP/s" in text and len(text.splitlines()) == len(names) + 2


def test_a_profile_changes_nothing():
    X, y = data()
    weights = np.linspace(0, 1, len(X))
    with_profile, without = trainer(seed=5), trainer(seed=5)
    for t in (with_profile, without):
        t.fit(X, y, epochs=2, batch_size=64, verbose=0)
    before = with_profile.history.history
    with_profile.profile(X, y, batch_size=64, steps=10, sample_weight=weights)
    assert with_profile.history.history is before and with_profile.epoch == 2
    for t in (with_profile, without):
        t.fit(X, y, epochs=2, batch_size=64, verbose=0)
    assert with_profile.history.history == without.history.history
    states = [t.model.state_dict() for t in (with_profile, without)]
    assert all(states[0][name].tobytes() == states[1][name].tobytes() for name in states[0])
    moments = [t._step.state_dict()["state"] for t in (with_profile, without)]
    for key, arrays in moments[0].items():
        assert all(arrays[name].tobytes() == moments[1][key][name].tobytes() for name in arrays)


def test_a_profile_before_anything_was_trained_leaves_the_first_weights():
    X, y = data()
    t = trainer()
    before = {name: value.copy() for name, value in t.model.state_dict().items()}
    t.profile(X, y, steps=3)
    after = t.model.state_dict()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert t.epoch == 0 and t._step.steps == 0


def test_accumulation_and_few_rows():
    X, y = data(10)
    profile = trainer(accumulate=4, clip_norm=1.0).profile(X, y, batch_size=3, steps=8)
    assert "adding up gradients" in [row["name"] for row in profile.rows]
    assert trainer().profile(X, y, batch_size=64, steps=2).steps == 2


class Twice(pb.Function):
    def shape(self, x):
        return x

    def forward(self, x):
        return 2 * x

    def backward(self, inputs, outputs, d_outputs):
        return 2 * d_outputs[0]


class Net(nn.Module):
    def __init__(self):
        self.fc, self.twice = nn.Linear(6, 3), Twice()

    def forward(self, x):
        return self.twice(self.fc(x))


def test_what_cannot_be_profiled_is_said_in_one_sentence():
    X, y = data()
    with pytest.raises(ValueError, match=r"cannot time ops written in Python, and Net.*is one"):
        pb.Trainer(Net(), loss=nn.CrossEntropyLoss(), optimizer=optim.SGD(lr=0.1)).profile(X, y)
    with pytest.raises(TypeError, match="profile needs arrays"):
        trainer().profile(iter([(X, y)]))
    with pytest.raises(ValueError, match="profile needs y"):
        trainer().profile(X)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        trainer().profile(X, y, steps=0)
