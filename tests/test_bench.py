"""The benchmark runner: that it measures what it says, and refuses to time what computes something else."""

import argparse
import importlib.util
import json
import sys

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import bench, nn, optim
from pybackprop.bench import crowded, kernels, peers, process, runner, startup, timing
from pybackprop.bench.cases import Case, FitCase
from pybackprop.bench.peers.numpy_mlp import NumpyMLP
from pybackprop.bench.report import comparison, table

SETTINGS = runner.Settings(rounds=2, seconds=0.005)
CASE = Case((6, 8, 3), 5, batches=4)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(("activation", "loss"), [("relu", "cross_entropy"), ("tanh", "mse")])
def test_the_numpy_network_follows_ours_step_by_step(activation, loss, optimizer):
    case = Case((6, 8, 7, 3), 5, activation=activation, loss=loss, optimizer=optimizer, lr=0.01)
    data = case.data()
    act = nn.ReLU if activation == "relu" else nn.Tanh
    model = nn.Sequential(nn.Linear(6, 8), act(), nn.Linear(8, 7), act(), nn.Linear(7, 3))
    names = ["0", "2", "4"]
    model.load_state_dict({f"{n}.{p}": data[f"{p[0]}{k}"] for k, n in enumerate(names) for p in ("weight", "bias")})
    weights, biases = [data[f"w{k}"] for k in range(3)], [data[f"b{k}"] for k in range(3)]
    net = NumpyMLP(weights, biases, batch=5, activation=activation, loss=loss, optimizer=optimizer, lr=0.01)
    criterion = nn.CrossEntropyLoss() if loss == "cross_entropy" else nn.MSELoss()
    rule = optim.Adam(lr=0.01) if optimizer == "adam" else optim.SGD(lr=0.01)
    step = pb.TrainStep(lambda m, x, y: criterion(m(x), y), model, rule)
    for x, y in zip(data["x"], data["y"], strict=True):
        assert net.step(x, y) == pytest.approx(step(x, y), rel=1e-4)
    np.testing.assert_allclose(net.predict(data["x"][0]), model(data["x"][0]), rtol=1e-3, atol=1e-5)
    for own, name in zip(net.weights, names, strict=True):
        np.testing.assert_allclose(own.T, model.state_dict()[f"{name}.weight"], rtol=1e-3, atol=1e-5)


def test_a_smaller_last_batch_is_legal():
    case = Case((6, 8, 3), 5)
    data = case.data()
    net = NumpyMLP([data["w0"], data["w1"]], [data["b0"], data["b1"]], batch=5)
    same = NumpyMLP([data["w0"], data["w1"]], [data["b0"], data["b1"]], batch=2)
    x, y = data["x"][0][:2], data["y"][0][:2]
    assert net.step(x, y) == same.step(x, y)
    np.testing.assert_array_equal(net.weights[0], same.weights[0])


def test_peers_agree_and_are_timed():
    said = []
    rows = runner.run_case(CASE, 1, ["numpy", "ours", "ours-fit"], SETTINGS, said.append)
    assert said == []
    assert [row["peer"] for row in rows] == ["numpy", "ours", "ours-fit"]
    for row in rows:
        assert 0 < row["seconds"]["q1"] <= row["seconds"]["median"] <= row["seconds"]["q3"] < 0.1
        assert row["examples_per_second"] == pytest.approx(5 / row["seconds"]["median"])
        np.testing.assert_allclose(row["losses"], rows[0]["losses"], rtol=1e-3)


FAULTY = """
def build(case, data, variant):
    return Run()
class Run:
    def losses(self, count):
        return [{losses}][:1] * (count // 2) + [{losses}][1:] * (count // 2)
    def run(self, steps):
        raise AssertionError("timed")
def version():
    return "0"
"""


@pytest.mark.parametrize(("losses", "words"), [("3.0, 2.0", "its losses are"), ("1.0, 1.0", "does not fall")])
def test_a_peer_with_other_losses_is_not_timed(tmp_path, monkeypatch, losses, words):
    (tmp_path / "faulty.py").write_text(FAULTY.format(losses=losses))
    monkeypatch.setitem(peers.PEERS, "faulty", peers.Peer("Faulty", str(tmp_path / "faulty")))
    monkeypatch.setattr(runner, "peer_file", lambda peer: peer.file + ".py" if peer.title == "Faulty" else real(peer))
    said = []
    rows = runner.run_case(CASE, 1, ["numpy", "faulty"], SETTINGS, said.append)
    assert "seconds" in rows[0] and "seconds" not in rows[1]
    assert words in rows[1]["wrong"] and words in said[0]


real = peers.peer_file


@pytest.mark.parametrize(
    ("source", "words"),
    [("import no_such_package", "no_such_package"), ("raise SystemError('broken')", "broken"), ("", "build")],
)
def test_a_peer_that_is_absent_or_breaks_is_left_out_with_the_reason(tmp_path, monkeypatch, source, words):
    (tmp_path / "peer.py").write_text(source)
    monkeypatch.setattr(runner, "peer_file", lambda peer: str(tmp_path / "peer.py"))
    (row,) = runner.run_case(CASE, 1, ["numpy"], SETTINGS, print)
    assert words in row["absent"]


def test_workers_have_their_threads_set_before_numpy_is_imported():
    found = process.environment(3, {"OPENBLAS_CORETYPE": "HASWELL"})
    assert {found[name] for name in found if name.endswith("_NUM_THREADS")} == {"3"}
    assert found["OPENBLAS_CORETYPE"] == "HASWELL"


def run(*arguments, **cases):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return bench.run(parser.parse_args(arguments), **{"steps": (CASE,), **cases})


def test_the_command_writes_results_compares_and_prints_a_table(tmp_path, capsys):
    path = str(tmp_path / "r.json")
    options = ("6-8", "--quick", "--threads", "1", "--peers", "ours,numpy")
    assert run(*options, "--json", path) == 0
    with open(path) as file:
        results = json.load(file)
    assert results["machine"]["cpus"] >= 1
    assert [row["peer"] for row in results["rows"]] == ["ours", "numpy"]
    assert run(*options, "--compare", path) == 0
    assert "compared with r.json" in capsys.readouterr().out
    assert run("--table", path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| network / batch / optimizer | threads | examples/s | pybackprop | NumPy |"
    assert lines[2].startswith("| 6-8-3/5/adam | 1 | ") and "x)" in lines[2]


def measured(median, spread=0.01):
    row = {"case": "c", "threads": 1, "peer": "ours", "examples_per_second": 1.0}
    return {"rows": [row | {"seconds": {"median": median, "q1": median - spread, "q3": median + spread}}]}


def test_a_difference_inside_the_noise_is_not_called_one():
    assert "0.50x the time, faster" in comparison(measured(2.0), measured(1.0))[0]
    assert "1.50x the time, slower" in comparison(measured(1.0), measured(1.5))[0]
    assert "within the noise" in comparison(measured(1.0, 0.1), measured(1.1, 0.1))[0]


def test_the_table_has_gaps_where_a_peer_was_absent():
    results = measured(1e-5)
    results["rows"] += [measured(2e-5)["rows"][0] | {"peer": "numpy", "case": "d"}]
    lines = table(results).splitlines()
    assert lines[2] == "| c | 1 | 1 | 10 us |  |"
    assert lines[3] == "| d | 1 |  |  | 20 us |"


def test_summary_is_median_and_quartiles():
    assert timing.summary([1.0, 2.0, 3.0, 4.0, 100.0]) == {"median": 3.0, "q1": 2.0, "q3": 4.0, "rounds": 5}


def test_import_is_quick_to_start_and_starts_no_thread():
    rows = startup.run_startup(1, ["ours"])
    (ours,) = (row for row in rows if row["start"] == "import" and row["peer"] == "ours")
    assert ours["threads_started"] == 0
    assert ours["seconds"]["median"] < 0.5  # ten times the budget: this is no timed test


@pytest.mark.parametrize("name", ["sklearn", "torch", "jax", "numba", "tensorflow"])
def test_the_rivals_that_are_installed_agree(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    variants = [peer for peer in peers.PEERS if peer.split("-")[0] == name and peer != "torch-compile"]
    rows = runner.run_case(CASE, 1, ["numpy", *variants], SETTINGS, lambda text: pytest.fail(text))
    assert all("seconds" in row for row in rows)


def test_the_limit_is_less_than_a_step_and_is_compared_with_nobody():
    said = []
    rows = runner.run_case(Case((64, 128, 10), 32, batches=4), 1, ["ours", "limit"], SETTINGS, said.append)
    ours, limit = rows
    assert said == [] and "losses" not in limit
    assert 0 < limit["seconds"]["median"] < ours["seconds"]["median"]
    assert 0 < ours["of_limit"] < 1 and limit["gflops"] > 1 and limit["gbytes"] > 1
    lines = table({"rows": rows}).splitlines()
    assert lines[0] == "| network / batch / optimizer | threads | examples/s | of limit | pybackprop |"
    assert lines[2].split(" | ")[3].endswith("%")


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_whole_fits_reach_the_same_loss(loss):
    case = FitCase((8, 16, 3 if loss == "cross_entropy" else 1), 32, loss=loss, rows=500, epochs=3, lr=0.01)
    assert case.name == f"8-16-{case.layers[-1]}/32/adam, 3 epochs of 500"
    names = ["ours-fit", "numpy", *(n for n in ("torch", "jax") if importlib.util.find_spec(n))]
    rows = runner.run_case(case, 1, names, SETTINGS, lambda text: pytest.fail(text))
    for row in rows:
        assert len(row["losses"]) == 3 and row["fit"] == case.name
        assert row["examples_per_second"] == pytest.approx(1500 / row["seconds"]["median"])


def test_kernels_are_checked_and_timed():
    shapes = {"matmul": (32, 40, 48), "cross_entropy": (8, 10), "layer_norm": (8, 20), "adam": (5000,)}
    kinds = dict.fromkeys(k.kind for k in kernels.KERNELS)
    small = [
        kernels.Kernel(kind, shapes.get(kind, (8, 24, 16) if kind.startswith("linear") else (100,))) for kind in kinds
    ]
    names = ["ours", *(n for n in ("torch", "jax") if importlib.util.find_spec(n))]
    shown = []
    rows = kernels.run_kernels(small, 1, names, 2, 0.002, shown.append)
    assert len(shown) == len(small) and len(rows) == len(small) * len(names)
    assert not [row for row in rows if "wrong" in row]
    for row in rows:
        if row["peer"] == "ours":
            # Loops over memory are measured by themselves; what fits into the first-level cache may beat them.
            assert 0 < row["of_limit"] < 2 and row["peak"] > 1
            assert ("gflops" in row) == (row["kernel"].split()[0] in ("linear", "matmul"))
    lines = kernels.kernel_table(rows).splitlines()
    assert len(lines) == 2 + len(small) and lines[2].startswith("| linear forward 8x24x16 | 1 | ")
    assert "ns/element" in "".join(kernels.kernel_lines([r for r in rows if r["kernel"] == "exp 100"]))


def test_a_kernel_with_another_result_is_not_timed(monkeypatch):
    kernel = kernels.Kernel("exp", (100,))
    monkeypatch.setattr(kernels.Kernel, "expected", lambda self, data: [np.exp(data["x"]) + 1])
    (row,) = kernels.run_kernels([kernel], 1, ["ours"], 2, 0.002, lambda rows: None)
    assert "off by" in row["wrong"] and "seconds" not in row
    assert "not timed" in kernels.kernel_lines([row])[0]


def test_a_busy_cpu_is_survived():
    (row,) = crowded.run_crowded(CASE, ["ours"], SETTINGS)
    if "absent" in row:
        pytest.skip(row["absent"])
    assert 0 < row["ratio"] < 1000
    assert "two threads" in crowded.crowded_lines([row])[0]


def test_groups_and_prefixes_choose_cases(capsys):
    fit = FitCase((6, 8, 3), 5, rows=20, epochs=2)
    assert run("fits", "--quick", "--threads", "1", "--peers", "ours-fit", steps=(), fits=(fit,)) == 0
    assert "6-8-3/5/adam, 2 epochs of 20, 1 thread" in capsys.readouterr().out
    with pytest.raises(ValueError, match="No case begins with 'x'"):
        run("x")


def test_cases_are_the_same_in_every_process():
    a, b = CASE.data(), CASE.data()
    assert a.keys() == {"w0", "b0", "w1", "b1", "x", "y"}
    assert all((a[name] == b[name]).all() for name in a)
    assert a["x"].shape == (4, 5, 6) and a["y"].shape == (4, 5) and a["w0"].shape == (8, 6)
    assert sys.version_info >= (3, 11)  # the workers' -P switch
