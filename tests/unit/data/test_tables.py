import random

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from hostile import TORTURE, Cases, flip_bit

from clotline.data.tables import read_table, write_table
from clotline.errors import ClotlineError


def table(rows=3000):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "StudyInstanceUID": [f"{row // 30:012x}" for row in range(rows)],
            "row": np.arange(rows),
            "position_mm": rng.normal(size=rows),
            "pe_present_on_image": rng.integers(0, 2, rows).astype(np.int8),
            "checksum": rng.integers(0, 2**64, rows, dtype=np.uint64),
            "split": np.repeat(["train", "test"], rows // 2),
        }
    )


def test_a_table_comes_back_as_it_was(tmp_path):
    write_table(table(), tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.parquet"), table())


def test_a_table_without_rows_comes_back_as_it_was(tmp_path):
    write_table(table().iloc[:0], tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.parquet"), table().iloc[:0])


def test_other_readers_of_parquet_do_not_mind_the_checksum(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(table(), path)
    pd.testing.assert_frame_equal(pd.read_parquet(path), table())
    assert pyarrow.parquet.ParquetFile(path).metadata.num_rows == len(table())


def test_the_same_table_has_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_table(table(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_flipped_bit_is_found_when_the_table_is_read(tmp_path):
    """Anywhere in the file, and half of the time in its footer, where a bit means most."""
    path, expected = tmp_path / "a.parquet", table()
    write_table(expected, path)
    content, rng, cases = path.read_bytes(), random.Random(1), Cases()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    for number in range(400 * TORTURE):
        head, tail = content[:-footer], content[-footer:]
        changed = flip_bit(content, rng) if number % 2 else head + flip_bit(tail, rng)
        path.write_bytes(changed)
        with cases.one(f"{path} cannot be used"):
            pd.testing.assert_frame_equal(read_table(path), expected)
    assert cases.refused == 400 * TORTURE


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.99])
def test_a_truncated_table_is_named(tmp_path, part):
    path = tmp_path / "a.parquet"
    write_table(table(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ClotlineError, match=f"{path} cannot be used"):
        read_table(path)


def test_a_missing_table_is_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "a.parquet")
