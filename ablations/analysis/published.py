"""Published results on ImageNet-1k with their sources; none was measured by this suite.

Recipes differ between sources, so accuracies are comparable only within a source. Parameters and multiply-adds were
counted from the official code, in the convention of `ablations.measure.complexity`.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import pandas as pd


def published_results() -> pd.DataFrame:
    """Returns a row per network.

    Columns: `attention` and `backbone` by their names in `sa_core`, `top1` and `top5` in percent (validation images,
    one crop of 224 x 224 pixels), `parameters`, `multiply_adds` of an image, `source`.
    """
    with as_file(files("ablations.analysis") / "published.csv") as path:
        return pd.read_csv(path, keep_default_na=False, na_values={"top5": ""})
