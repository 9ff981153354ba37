"""Tables: kinds of columns, missing and unknown values, what is learnt, what a file carries, and bad input."""

import json

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from pybackprop.io import load_file, save_file  # noqa: E402
from pybackprop.tabular import TabularModel  # noqa: E402
from pybackprop.tabular.columns import Columns, numbers, read_table, texts  # noqa: E402
from pybackprop.tabular.ensemble import calibrate  # noqa: E402
from pybackprop.tabular.targets import find_task, regression_metrics, split  # noqa: E402


def houses(rows=600, seed=0):
    """A table with every kind of column and missing values; price follows from size, city, street and garden."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(20, 200, rows)
    city = rng.choice(["Bern", "Oslo", "Rome"], rows)
    street = rng.choice([f"street {i}" for i in range(40)], rows)
    garden = rng.random(rows) < 0.5
    price = 3 * size + 80 * (city == "Oslo") + 100 * garden + rng.normal(0, 5, rows)
    frame = pd.DataFrame({"size": size, "city": city, "street": street, "garden": garden, "price": price})
    frame.loc[rng.random(rows) < 0.1, "size"] = np.nan
    frame.loc[rng.random(rows) < 0.1, "city"] = None
    return frame


@pytest.fixture(scope="module")
def fitted():
    model = TabularModel("price", epochs=60, lr=3e-3)
    return model, model.fit(houses())


def test_a_regression_beats_its_baseline_and_reports_both(fitted):
    _, report = fitted
    assert report.task == "regression"
    assert sum(report.rows.values()) == 600 and min(report.rows.values()) == 90
    assert report.metrics.keys() == report.baseline.keys() == {"r2", "mae", "rmse"}
    assert report.metrics["r2"] > 0.6  # a tenth of the sizes, which matter most, are missing
    assert report.metrics["mae"] < 0.5 * report.baseline["mae"]
    assert abs(report.baseline["r2"]) < 0.1
    text = str(report)
    assert "regression of 'price'" in text and "baseline" in text and "rmse" in text


def test_the_best_weights_of_the_validation_part_are_kept(fitted):
    _, report = fitted
    losses = report.history["val_loss"]
    assert losses[report.best_epoch - 1] == min(losses)


def test_a_classification_of_text_learns_and_gives_probabilities():
    frame = houses(400)
    frame["price"] = np.where(frame["price"] > frame["price"].median(), "dear", "cheap")
    model = TabularModel("price", epochs=40)
    report = model.fit(frame)
    assert report.task == "classification"
    assert report.metrics["accuracy"] > report.baseline["accuracy"] + 0.2
    assert report.metrics["log_loss"] < report.baseline["log_loss"] - 0.1
    predicted = model.predict(frame)
    assert predicted.columns.tolist() == ["prediction", "probability_cheap", "probability_dear"]
    np.testing.assert_allclose(predicted.iloc[:, 1:].sum(axis=1), 1, atol=1e-6)
    most = predicted.iloc[:, 1:].to_numpy().argmax(axis=1)
    assert (predicted["prediction"] == np.array(["cheap", "dear"])[most]).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["no", "yes"], str),
        ([0, 1], (int, np.integer)),
        ([False, True], (bool, np.bool_)),
        ([10, 9], (int, np.integer)),
    ],
)
def test_predicted_classes_are_of_the_targets_kind(values, expected):
    frame = houses(200)
    frame["price"] = pd.Series([values[int(p > 300)] for p in frame["price"]])
    model = TabularModel("price", epochs=2)
    model.fit(frame)
    predicted = model.predict(frame)["prediction"]
    assert all(isinstance(value, expected) for value in predicted)
    assert set(predicted) <= set(values)
    assert model.classes == sorted(map(str, values), key=lambda name: (int(name) if name.isdecimal() else 0, name))


def test_two_fits_with_one_seed_are_equal_and_leave_the_global_generator_alone():
    from pybackprop import random

    before = random.generator().bit_generator.state
    a, b = (TabularModel("price", epochs=3, seed=5) for _ in range(2))
    assert a.fit(houses()).history == b.fit(houses()).history
    pd.testing.assert_frame_equal(a.predict(houses(50, 1)), b.predict(houses(50, 1)))
    assert random.generator().bit_generator.state == before


def test_a_file_carries_everything(tmp_path, fitted):
    model, _ = fitted
    path = tmp_path / "m.safetensors"
    model.save(path)
    loaded = TabularModel.load(path)
    new = houses(100, 1).drop(columns="price")[["garden", "street", "city", "size"]]  # another order
    pd.testing.assert_frame_equal(loaded.predict(new), model.predict(new))
    assert loaded.target == "price"
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_predictions_keep_the_tables_index_and_do_not_depend_on_other_rows(fitted):
    model, _ = fitted
    new = houses(30, 2).set_axis(range(100, 130))
    whole = model.predict(new)
    assert whole.index.tolist() == list(range(100, 130))
    alone = pd.concat([model.predict(new.iloc[i : i + 1]) for i in range(30)])
    pd.testing.assert_frame_equal(whole, alone, check_exact=True)


def test_unknown_categories_and_missing_cells_are_predicted(fitted):
    model, _ = fitted
    new = pd.DataFrame({"size": [np.nan], "city": ["Atlantis"], "street": ["nowhere"], "garden": [None]})
    assert np.isfinite(model.predict(new)["prediction"]).all()


def test_columns_by_kind():
    frame = houses(400).drop(columns="price")
    frame["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(400), unit="D")
    frame["code"] = np.arange(400) % 7
    frame["name"] = [f"house {i}" for i in range(400)]
    frame["country"] = "one"
    columns = Columns.learn(frame, "t", ("code",))
    assert columns.numeric == ["size", "when"]
    assert {name: len(values) for name, values in columns.one_hot.items()} == {"city": 4, "garden": 2, "code": 7}
    assert {name: len(values) for name, values in columns.embedded.items()} == {"street": 40}
    assert columns.indicated.tolist() == [True, False]
    assert [note.split("'")[1] for note in columns.notes] == ["name", "country"]
    dense, street = columns.encode(frame, "t")
    assert columns.plain_width == 2 + 1 + 4 + 2 + 7
    assert dense.shape == (400, columns.dense_width) == (400, columns.plain_width + 16 + 16)
    assert dense.dtype == np.float32 and street.dtype == np.int64
    np.testing.assert_allclose(dense[:, :2].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(dense[:, :2].std(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(dense[:, 2], frame["size"].isna())
    np.testing.assert_array_equal(dense[:, 3:7].sum(axis=1), 1)
    assert street.min() >= 1 and street.max() == 40


def test_missing_becomes_the_training_median_and_the_unknown_category_zero():
    train = pd.DataFrame({"a": [1.0, 2.0, 9.0, None], "c": ["x", "y", "x", "y"]})
    columns = Columns.learn(train, "t")
    new = pd.DataFrame({"a": [None, 2.0], "c": ["z", None]})
    (dense,) = columns.encode(new, "t")
    assert dense[0, 0] == dense[1, 0]  # the median is 2
    assert dense[:, 1].tolist() == [1, 0]
    assert dense[:, 2:].tolist() == [[0, 0], [0, 0]]


def test_rare_values_share_the_unknown_id():
    train = pd.DataFrame({"c": [f"v{i % 20}" for i in range(100)] + ["once"], "a": range(101)})
    columns = Columns.learn(train, "t")
    assert "once" not in columns.embedded["c"] and len(columns.embedded["c"]) == 20
    assert columns.encode(train, "t")[1][-1] == 0


def test_text_of_whole_floats_is_that_of_integers():
    assert texts(pd.Series([1.0, np.nan, 3.0])).tolist() == ["1", "<missing>", "3"]
    assert texts(pd.Series([1.5, 2.0])).tolist() == ["1.5", "2.0"]


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"] * 20, "classification"),
        ([True, False] * 20, "classification"),
        ([0, 1, 2] * 20, "classification"),
        ([0.0, 1.0] * 20, "classification"),
        (range(60), "regression"),
        ([0.5, 1.5] * 20, "regression"),
        (["1.5", "2.5", "3.5", "oops"] * 10, "regression"),
    ],
)
def test_the_task_follows_from_the_target(values, task):
    assert find_task(pd.Series(list(values))) == task


def test_splits_are_disjoint_complete_seeded_and_stratified():
    labels = np.repeat([0, 1], [900, 100])
    parts = split(1000, labels, 0.15, 0.15, 3, "t")
    assert sorted(np.concatenate(parts)) == list(range(1000))
    assert [len(part) for part in parts] == [700, 150, 150]
    assert [int(labels[part].sum()) for part in parts] == [70, 15, 15]
    assert all((a == b).all() for a, b in zip(parts, split(1000, labels, 0.15, 0.15, 3, "t"), strict=True))
    assert any((a != b).any() for a, b in zip(parts, split(1000, labels, 0.15, 0.15, 4, "t"), strict=True))
    assert 0 < labels[parts[0]][:200].sum() < 50  # classes are mixed, not one after the other


def test_r2_is_the_usual_one():
    y = np.array([1.0, 2.0, 4.0])
    assert regression_metrics(y, y) == {"r2": 1.0, "mae": 0.0, "rmse": 0.0}
    assert regression_metrics(np.full(3, y.mean()), y)["r2"] == pytest.approx(0)


def test_parquet_and_csv_give_the_same_table(tmp_path):
    pytest.importorskip("pyarrow")
    frame = houses(50)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    a, b = read_table(tmp_path / "t.csv"), read_table(tmp_path / "t.parquet")
    assert a.columns.tolist() == b.columns.tolist()
    for name in ("size", "price"):
        np.testing.assert_allclose(numbers(a[name], "t"), numbers(b[name], "t"))
    for name in ("city", "garden"):
        assert texts(a[name]).tolist() == texts(b[name]).tolist()


def write(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


GOOD = "a,c,y\n" + "".join(f"{i},{'uv'[i % 2]},{2 * i}.5\n" for i in range(40))


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("", "y", "t.csv is empty."),
        ("a,y\n", "y", "t.csv has a header but no rows."),
        (GOOD, "price", "t.csv has no target column 'price'; its columns are 'a', 'c', 'y'."),
        (GOOD.replace("\n7,", "\nseven,"), "y", "t.csv, line 9, column 'a': cannot read 'seven' as a finite number."),
        (GOOD.replace("\n7,", "\ninf,"), "y", "t.csv, line 9, column 'a': cannot read 'inf' as a finite number."),
        (GOOD.replace(",14.5", ",1o4"), "y", "t.csv, line 9, column 'y': cannot read '1o4' as a finite number."),
        (
            GOOD.replace("\n7,v", "\n7,v,u,u"),
            "y",
            "t.csv cannot be read as a table: Expected 3 fields in line 9, saw 5.",
        ),
        (GOOD.replace("\n7,", "\n\xff,").encode("latin-1"), "y", "t.csv cannot be read as a table: "),
        ("a,y\n" + "1,2,3\n" * 20, "y", "t.csv cannot be read as a table: "),
        ("a,y\n" + "1,\n" * 20, "y", "t.csv: the target column 'y' is empty in every row."),
        ("a,y\n" + "1,x\n" * 20, "y", "t.csv: the target column 'y' has one class only, 'x'."),
        ("a,y\n1,2.5\n2,3.5\n", "y", "t.csv has 2 rows with a target; at least 10 are needed."),
        (
            "a,y\n" + "".join(f"1,{i}.5\n" for i in range(20)),
            "y",
            "has no column from which the target could be learnt.",
        ),
        (
            "a,y\n" + "".join(f"{i},{'xyzuvw'[i % 6]}\n" for i in range(12)),
            "y",
            "has too few rows, or too few of each class",
        ),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(tmp_path, text, target, words):
    model = TabularModel(target, epochs=1)
    with pytest.raises(ValueError) as info:
        model.fit(write(tmp_path, text))
    assert words in str(info.value) and "\n" not in str(info.value)
    with pytest.raises(RuntimeError, match="has not been fitted"):
        model.predict(houses(5))


def test_rows_without_a_target_are_left_out_with_a_note(tmp_path):
    text = GOOD.replace(",14.5", ",").replace(",20.5", ",").replace("\n30,", "\nx,")
    with pytest.raises(ValueError, match="line 32, column 'a'"):  # still the line of the file
        TabularModel("y", epochs=1).fit(write(tmp_path, text))
    report = TabularModel("y", epochs=1).fit(write(tmp_path, text.replace("\nx,", "\n30,")))
    assert "2 rows without a target were left out" in str(report)
    assert sum(report.rows.values()) == 38


def test_unknown_endings_and_a_repeated_column_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in [.]csv"):
        read_table(tmp_path / "t.xlsx")
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(ValueError, match=r"bad.parquet cannot be read as a table"):
        read_table(tmp_path / "bad.parquet")


def test_a_new_table_must_have_the_columns(fitted):
    model, _ = fitted
    with pytest.raises(ValueError, match="the table has no column 'street', which the model was trained on"):
        model.predict(houses(5).drop(columns="street"))
    with pytest.raises(TypeError, match="a pandas DataFrame or the path of a file, not list"):
        model.predict([1, 2])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "ranking"}, "task is"),
        ({"hidden": (0,)}, "hidden holds widths"),
        ({"validation": 0.0}, "shares whose sum is below 1"),
        ({"members": 0}, "members is a whole number above 0"),
        ({"bins": -1}, "bins is a whole number"),
        ({"validation": 0.6, "test": 0.5}, "shares whose sum is below 1"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(ValueError, match=words):
        TabularModel("y", **options)


def test_bins_are_a_piecewise_linear_encoding():
    x = np.random.default_rng(0).exponential(size=1000)
    columns = Columns.learn(pd.DataFrame({"x": x, "few": np.arange(1000) % 2}), "t", bins=4)
    edges = columns.edges[0]
    np.testing.assert_allclose(edges, np.quantile(x, [0, 0.25, 0.5, 0.75, 1], method="nearest"))
    assert len(columns.edges[1]) == 0 and columns.dense_width == 2 + 4  # two values make no bins
    new = pd.DataFrame({"x": [-5.0, edges[1], (edges[1] + edges[2]) / 2, 1e9], "few": 0})
    (dense,) = columns.encode(new, "t")
    np.testing.assert_allclose(dense[:, 2:], [[0] * 4, [1, 0, 0, 0], [1, 0.5, 0, 0], [1] * 4], atol=1e-6)
    assert dense[3, 0] == 10  # what is far out is not extrapolated to
    assert Columns.learn(pd.DataFrame({"x": x}), "t", bins=0).dense_width == 1
    assert len(Columns.learn(pd.DataFrame({"x": x[:30]}), "t").edges[0]) == 0  # too few rows for two bins


def wave(rows=600):
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (rows, 3))
    return pd.DataFrame(x, columns=list("abc")), np.sin(4 * x[:, 0]) + 0.1 * rng.normal(size=rows), x @ [1, 2, 3]


def test_the_kind_of_network_that_fits_is_kept():
    frame, waves, line = wave()
    models = {}
    for name, y in (("waves", waves), ("line", line)):
        models[name] = TabularModel("y", members=2)
        models[name].fit(frame.assign(y=y))
    width = models["waves"]._columns.dense_width
    assert width > 3
    assert all(network.dense == width for network in models["waves"]._networks)
    assert any(network.dense == 3 for network in models["line"]._networks)


def test_networks_have_validation_rows_of_their_own_and_are_averaged():
    frame, _, line = wave(300)
    model = TabularModel("y", members=3, bins=0, epochs=5)
    report = model.fit(frame.assign(y=line))
    assert report.members == len(model._networks) == 3 and "first of 3 networks" in str(report)
    inputs = model._columns.encode(frame, "t")
    alone = [network(*inputs)[:, 0] * model._scale[1] + model._scale[0] for network in model._networks]
    np.testing.assert_allclose(np.mean(alone, axis=0), model.predict(frame)["prediction"], rtol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0
    for rows, expected in ((100, 3), (6000, 2), (60_000, 1)):
        big = pd.DataFrame({"a": np.arange(rows) / rows, "b": np.arange(rows) % 2})
        model = TabularModel("a", bins=0, epochs=1, hidden=(2,), batch_size=8192)
        assert model.fit(big).members == expected


def test_without_test_rows_the_report_is_about_held_out_ones():
    frame, _, line = wave(300)
    report = TabularModel("y", test=0.0, epochs=40).fit(frame.assign(y=line))
    assert report.rows["test"] == 0 and sum(report.rows.values()) == 300
    assert "on held-out rows" in str(report) and report.metrics["r2"] > 0.9


def expected_calibration_error(probability, right):
    bins = np.minimum((probability * 10).astype(int), 9)
    return sum(abs(probability[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins))


def test_calibration_finds_the_temperature():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = np.array([rng.choice(3, p=row) for row in p])
    rows = np.arange(2000)
    for factor in (0.3, 1.0, 4.0):  # as sure as it should be with factor 1
        loss, temperature = calibrate([(rows, factor * logits[:2000])], y)
        assert temperature == pytest.approx(factor, rel=0.15)
        scaled = factor * logits[2000:] / temperature
        q = np.exp(scaled) / np.exp(scaled).sum(1, keepdims=True)
        right = q.argmax(1) == y[2000:]
        assert expected_calibration_error(q.max(1), right) < 0.03
        assert loss < 1
    few = np.arange(20)
    assert calibrate([(few, 50 * np.eye(3)[y[:20]])], y)[1] > 5  # twenty right answers are no reason to be sure


def test_probabilities_are_calibrated_on_rows_never_seen():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(3000, 5))
    p = 1 / (1 + np.exp(-1.5 * X[:, 0] + X[:, 1] * X[:, 2]))
    frame = pd.DataFrame(X, columns=list("abcde")).assign(y=np.where(rng.random(3000) < p, "yes", "no"))
    model = TabularModel("y", members=1, dropout=0.0, weight_decay=0.0, patience=60, epochs=80)
    model.fit(frame[:1500])
    found = model.predict(frame[1500:])
    right = (found["prediction"] == frame["y"][1500:]).to_numpy()
    calibrated = expected_calibration_error(found.iloc[:, 1:].max(axis=1).to_numpy(), right)
    assert calibrated < 0.06
    temperature, model._temperature = model._temperature, 0.4
    surer = expected_calibration_error(model.predict(frame[1500:]).iloc[:, 1:].max(axis=1).to_numpy(), right)
    assert temperature > 0.6 and surer > calibrated + 0.03


def damaged(change):
    def apply(tensors, config):
        change(tensors, config)
        return tensors, {"pybackprop.tabular": json.dumps(config)}

    return apply


@pytest.mark.parametrize(
    "change",
    [
        lambda t, c: (t, {}),
        lambda t, c: (t, {"pybackprop.tabular": "["}),
        lambda t, c: (t, {"pybackprop.tabular": "[" * 100_000}),
        damaged(lambda t, c: c.update(task="os.system")),
        damaged(lambda t, c: c.pop("classes")),
        damaged(lambda t, c: c.update(classes=["a", "b"])),
        damaged(lambda t, c: c["columns"].update(numeric=[1])),
        damaged(lambda t, c: c["columns"]["numeric"].append("more")),
        damaged(lambda t, c: c["columns"]["one_hot"].update(more=["a", "b"])),
        damaged(lambda t, c: t.pop("target")),
        damaged(lambda t, c: t.pop("columns.median")),
        damaged(lambda t, c: t.pop("columns.edges")),
        damaged(lambda t, c: t.update({"columns.edges": t["columns.edges"][::-1].copy()})),
        damaged(lambda t, c: t.update({"columns.edges": t["columns.edges"][1:]})),
        damaged(lambda t, c: t.update({"columns.edge_counts": -t["columns.edge_counts"]})),
        damaged(lambda t, c: t.update({"columns.edge_counts": np.full(1, 2**62)})),
        damaged(lambda t, c: t.pop("temperature")),
        damaged(lambda t, c: t.update({"temperature": np.zeros(1)})),
        damaged(lambda t, c: t.pop("network.0.layers.0.linear.weight")),
        damaged(lambda t, c: t.pop("network.0.out.weight")),
        damaged(lambda t, c: t.update({"network.0.layers.0.linear.weight": np.zeros((2**40, 0), np.float32)})),
        damaged(lambda t, c: t.update({"network.0.layers.0.linear.bias": np.zeros(3, np.float32)})),
        damaged(lambda t, c: t.update({"network.0.more": np.zeros(3, np.float32)})),
        damaged(lambda t, c: t.update({"network.7.more": np.zeros(3, np.float32)})),
        damaged(lambda t, c: t.update({"network": np.zeros(3, np.float32)})),
        damaged(lambda t, c: t.update({"network.": np.zeros(3, np.float32)})),
    ],
)
def test_a_damaged_model_file_is_refused(tmp_path, fitted, change):
    model, _ = fitted
    path = tmp_path / "m.safetensors"
    model.save(path)
    tensors, metadata = load_file(path)
    save_file(*reversed_path(change(tensors, json.loads(metadata["pybackprop.tabular"])), path))
    with pytest.raises(ValueError, match=r"m[.]safetensors") as info:
        TabularModel.load(path)
    assert "\n" not in str(info.value)


def reversed_path(parts, path):
    tensors, metadata = parts
    return tensors, path, metadata
