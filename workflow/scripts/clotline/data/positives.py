"""positives.h5: the positive slices of train and valid, together for training."""

from collections import defaultdict
from pathlib import Path

import pandas as pd

from clotline.data.shards import (
    BOX_COLUMNS,
    CHECKSUM,
    STORED_COLUMNS,
    ShardWriter,
    StoredPixels,
    read_study_labels,
    shard_grid,
)
from clotline.data.slice_table import positive_slices
from clotline.labels import STUDY_UID


def copy_positives(
    shards: dict[str, str | Path], slices: pd.DataFrame, path: str | Path, step=iter
) -> int:
    """Copies positive slices of the train and valid studies, chunk by chunk without decoding.

    Args:
        shards: shard name to its file.
        slices: slices.parquet: ``shard``, ``row``, ``checksum``, ``split``, image label and UIDs.
        path: HDF5 file to write, of the same format as a shard, with one further column ``split``.
        step: wraps the iterator over shards, for progress.

    Returns:
        Number of slices copied.

    Raises:
        ClotlineError: a shard is damaged; says how to make it again.
    """
    wanted = positive_slices(slices)
    # All are of one grid: another one makes all shards anew.
    grid = shard_grid(next(iter(shards.values())))
    stored = [*STORED_COLUMNS, *(name for name in BOX_COLUMNS if name in slices)]
    with ShardWriter(path, grid) as writer:
        # Not sorted by their names: 1000 would come before 101.
        for name, part in step(wanted.groupby("shard", sort=False)):
            labels = read_study_labels(shards[name]).to_dict("index")
            source = StoredPixels(shards[name])
            # As lists: taking a table apart takes longer than copying its slices.
            columns = {name: part[name].tolist() for name in (*stored, "row")}
            studies = defaultdict(list)
            for row, uid in enumerate(columns[STUDY_UID]):
                studies[uid].append(row)
            for uid, rows in studies.items():
                study = {name: [values[k] for k in rows] for name, values in columns.items()}
                chunks = map(source.chunk, study["row"], study[CHECKSUM])
                writer.append(study, labels[uid], chunks)
        writer.add_column("split", wanted["split"], "S5")
    return len(wanted)
