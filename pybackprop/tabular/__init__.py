"""Networks for tables: numeric and categorical columns with missing values in, a trained and reported model out.

    >>> import pandas as pd, numpy as np
    >>> from pybackprop.tabular import TabularModel
    >>> rng = np.random.default_rng(0)
    >>> frame = pd.DataFrame({"size": rng.uniform(20, 200, 400), "city": rng.choice(["Bern", "Oslo"], 400)})
    >>> frame["price"] = 3 * frame["size"] + np.where(frame["city"] == "Oslo", 100, 0)
    >>> model = TabularModel("price", epochs=30)
    >>> report = model.fit(frame)
    >>> report.metrics["r2"] > 0.9
    True
    >>> model.predict(frame.head(2)).columns.tolist()
    ['prediction']

Needs pandas, and pyarrow for Parquet (extra ``table``).
"""

from .model import TabularModel
from .targets import Report

__all__ = ["Report", "TabularModel"]
