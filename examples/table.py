"""A table with text and missing cells, from CSV to predictions: which wine is it?

scikit-learn's wine data (real measurements), with one column made categorical and holes punched into others, as tables
have them. The same from the command line: pybackprop train wine.csv --target cultivar
pip install 'pybackprop[demo,table]', then python examples/table.py
"""

import os
import tempfile

import numpy as np
from sklearn.datasets import load_wine

from pybackprop.tabular import TabularModel


def main(epochs=100):
    wine = load_wine(as_frame=True)
    table = wine.data.assign(cultivar=[f"cultivar {name}" for name in wine.target])
    table["color_intensity"] = np.select(
        [table["color_intensity"] < 3, table["color_intensity"] < 6], ["pale", "medium"], "deep"
    )
    table = table.mask(np.random.default_rng(0).random(table.shape) < 0.05)
    known = table.dropna(subset="cultivar")

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "wine.csv")
        known.to_csv(path, index=False)
        model = TabularModel("cultivar", epochs=epochs)
        report = model.fit(path)
        print(report)
        file = os.path.join(folder, "wine.safetensors")
        model.save(file)
        new = known.drop(columns="cultivar").head()
        print(TabularModel.load(file).predict(new).round(3).to_string())
    return report.metrics["accuracy"]


if __name__ == "__main__":
    main()
