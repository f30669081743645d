"""A shard that stands alone, as that of new studies does: no slices.parquet lists its slices."""

from pathlib import Path

import pandas as pd

from clotline.data.shards import read_rows


def stored_slices(shard: str | Path) -> pd.DataFrame:
    """The slices of a shard that stands alone, as slices.parquet lists those of many.

    Args:
        shard: file named shard-<name>.h5.
    """
    slices = read_rows(shard)
    return slices.assign(shard=Path(shard).stem.removeprefix("shard-"), row=range(len(slices)))
