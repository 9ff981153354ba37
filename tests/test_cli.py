"""The command line: what it prints and writes, and one sentence with exit code 2 for what a person did wrong."""

import subprocess
import sys

import numpy as np
import pytest

import pybackprop as pb
from pybackprop import _core, cli

pd = pytest.importorskip("pandas")


def run(capsys, *arguments):
    """``(exit code, output, errors)`` of the command."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = error.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def table(folder):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.uniform(20, 200, 300), "city": rng.choice(["Bern", "Oslo"], 300)})
    frame["price"] = 3 * frame["size"] + 80 * (frame["city"] == "Oslo")
    frame.to_csv("houses.csv", index=False)
    return frame


def test_info_says_what_runs_here(capsys):
    code, out, err = run(capsys, "info")
    assert (code, err) == (0, "")
    fields = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert fields["pybackprop"] == pb.__version__
    assert _core.isa_active() in out and all(name in out for name in _core.isa_names())
    assert f"threads          {_core.get_num_threads()} (" in out
    assert "OpenMP runtime" in out


def test_show_config_prints_the_same(capsys):
    _, out, _ = run(capsys, "info")
    pb.show_config()
    assert capsys.readouterr().out == out


def test_train_and_predict(capsys, folder, table):
    pytest.importorskip("matplotlib")
    code, out, err = run(
        capsys, "train", "houses.csv", "--target", "price", "--epochs", 40, "--hidden", "32,16", "--lr", 0.01, "--quiet"
    )
    assert (code, err) == (0, "")
    assert "regression of 'price': 210 train, 45 validation, 45 test rows" in out
    assert "baseline" in out and "model: model.safetensors" in out and "learning curve: model.png" in out
    assert (folder / "model.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = run(capsys, "predict", "model.safetensors", "houses.csv")
    assert (code, out, err) == (0, "300 predictions of 'price': houses.predictions.csv\n", "")
    predicted = pd.read_csv("houses.predictions.csv")["prediction"]
    assert np.abs(predicted - table["price"]).mean() < 0.2 * table["price"].std()


def test_training_twice_gives_the_same_file(capsys, folder, table):
    for out in ("a", "b"):
        code, *_ = run(
            capsys,
            "train",
            "houses.csv",
            "--target",
            "city",
            "--epochs",
            3,
            "--quiet",
            "--out",
            out,
            "--curve",
            "c.png",
        )
        assert code == 0
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


def refusals():
    """Arguments and the words of the answer."""
    train = ("train", "houses.csv", "--target")
    return [
        ((*train, "rent"), "houses.csv has no target column 'rent'; its columns are 'size', 'city', 'price'."),
        ((*train, "price", "--ignore", "rent"), "houses.csv has no column 'rent', which is to be ignored"),
        ((*train, "price", "--ignore", "size,city"), "has no column from which the target could be learnt"),
        ((*train, "price", "--out", "absent/m.safetensors"), "there is no folder absent"),
        ((*train, "price", "--task", "ranking"), "invalid choice: 'ranking'"),
        ((*train, "price", "--hidden", "64,x"), "expected a whole number above 0, got 'x'"),
        ((*train, "price", "--epochs", "0"), "expected a whole number above 0, got '0'"),
        ((*train, "price", "--lr", "fast"), "expected a number of at least 0, got 'fast'"),
        ((*train, "price", "--test", "0.9"), "shares whose sum is below 1"),
        (("train", "absent.csv", "--target", "y"), "absent.csv: No such file or directory"),
        (("train", "houses.csv"), "required: --target"),
        (("predict", "absent.safetensors", "houses.csv"), "absent.safetensors: No such file or directory"),
        (("predict", "houses.csv", "houses.csv"), "houses.csv is not a valid safetensors file"),
        (("bench", "--peers", "abacus"), "'abacus' is not one of"),
        (("bench", "no-such-case"), "No case begins with 'no-such-case'"),
        (("bench", "--threads", "0"), "expected positive numbers"),
        (("fly",), "invalid choice: 'fly'"),
        ((), "required: command"),
    ]


@pytest.mark.parametrize(("arguments", "words"), refusals())
def test_mistakes_are_answered_in_one_sentence(capsys, folder, table, arguments, words):
    before = sorted(folder.iterdir())
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == ""
    assert words in err and err.startswith("pybackprop") and err.count("\n") == 1 and "Traceback" not in err
    assert sorted(folder.iterdir()) == before


def test_a_table_without_a_column_of_the_model_is_refused(capsys, folder, table):
    run(capsys, "train", "houses.csv", "--target", "price", "--epochs", 1, "--quiet")
    table.drop(columns="city").to_csv("new.csv", index=False)
    code, out, err = run(capsys, "predict", "model.safetensors", "new.csv")
    assert (code, out) == (2, "")
    assert err == "pybackprop: new.csv has no column 'city', which the model was trained on.\n"
    assert not (folder / "new.predictions.csv").exists()


def test_a_model_that_is_no_table_model_is_refused(capsys, table):
    pb.save(pb.nn.Linear(2, 2), "m.safetensors")
    code, _, err = run(capsys, "predict", "m.safetensors", "houses.csv")
    assert (code, err) == (2, "pybackprop: m.safetensors holds no tabular model.\n")


def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "pybackprop", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pybackprop {pb.__version__}\n"


def test_the_optional_packages_are_imported_only_when_needed():
    code = (
        "import sys, pybackprop.cli; pybackprop.cli.main(['info'])\n"
        "print(sorted({'pandas', 'sklearn', 'matplotlib', 'tqdm', 'torch', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_demo_learns_and_agrees_with_numpy(capsys, folder):
    for name in ("sklearn", "matplotlib", "tqdm"):
        pytest.importorskip(name)
    from pybackprop import demo

    result = demo.run(epochs=25, picture="curve.png")
    out = capsys.readouterr().out
    assert result["accuracy"] >= 0.97
    assert result["difference"] < 0.01
    assert "test accuracy" in out and "NumPy" in out and "times as long" in out
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_no_file_of_a_command_is_written_over_another(tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("a,y\n" + "".join(f"{i},{i}\n" for i in range(40)))
    before = table.read_bytes()
    assert cli.main(["train", str(table), "--target", "y", "--out", str(table)]) == 2
    assert cli.main(["train", str(table), "--target", "y", "--out", str(tmp_path / "m.png")]) == 2
    assert cli.main(["predict", str(tmp_path / "m"), str(table), "--out", str(table)]) == 2
    assert capsys.readouterr().err.count("give one of them another name") == 3
    assert table.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["t.csv"]
