"""Whether a JPEG Lossless codestream holds the image that a decoder made of it.

The image, the predictor and the Huffman table determine every bit of such a codestream. So what a
decoder made up, because the codestream ends early or is damaged, shows: the image would take more
or fewer bits than there are.

Source: ITU-T T.81, annex H.
"""

import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np

#: Of each difference modulo 65,536, its category: the number of bits of its magnitude.
_CATEGORY = np.array(
    [min(value, 65536 - value).bit_length() for value in range(65536)], dtype=np.uint8
)


class _Scan(NamedTuple):
    """The one scan of a codestream: where its data starts, and how it is coded."""

    start: int
    table: bytes
    predictor: int
    precision: int


def is_image_of(stream: bytes, image: np.ndarray) -> bool:
    """Whether the codestream is that of the image, to the bit.

    The number of bits must be right; the first pixel of each row, and all those of the last one,
    must stand in the codestream where they belong. An image in which a decoder skipped bits that
    are no code, or lost its way and came back, fails one of the two.

    Args:
        stream: one scan of one component, without restart intervals or a point transform; of any
            other the answer is no.
        image: (rows, columns) of unsigned integers, as decoded.
    """
    scan = _scan(stream)
    if scan is None:
        return False
    data = np.frombuffer(stream, np.uint8, offset=scan.start)
    stuffed = _stuffed(data)
    if stuffed is None:
        return False
    stuffed, end = stuffed
    codes, sizes = _codes(scan.table)
    differences = _differences(image.astype(np.uint16, copy=False), scan)
    bits = sizes.take(differences)
    # In 32 bits: a row of 4096 pixels takes 131,072 bits at most.
    rows = bits.sum(1, dtype=np.uint32).cumsum(dtype=np.int64)
    if not 0 <= 8 * (end - len(stuffed)) - rows[-1] < 8:
        return False
    # An unknown category takes no bits.
    if not bits.all():
        return False
    starts = np.concatenate(([0], rows[:-1]))
    last = starts[-1] + np.concatenate(([0], bits[-1, :-1].cumsum(dtype=np.int64)))
    looked_at = np.concatenate((differences[:, 0], differences[-1]))
    offsets = np.concatenate((starts, last))
    return _stand_there(data[:end], stuffed, offsets, looked_at, codes, sizes)


def _scan(stream: bytes) -> _Scan | None:
    """What must be known of the codestream; None where it is not of the usual sort."""
    at, tables, precision = 2, {}, None
    while True:
        while stream[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        _, marker, length = struct.unpack_from(">BBH", stream, at)
        segment, at = stream[at + 4 : at + 2 + length], at + 2 + length
        match marker:
            case 0xC3:  # start of frame, lossless with Huffman codes
                precision, components = segment[0], segment[5]
            case 0xC4:  # Huffman tables
                while segment:
                    end = 17 + sum(segment[1:17])
                    tables[segment[0]] = segment[1:end]
                    segment = segment[end:]
            case 0xDD if segment != b"\0\0":  # restart interval
                return None
            case 0xDA:
                break
    if precision is None or components != 1 or len(segment) != 6 or segment[0] != 1:
        return None
    table, predictor = tables.get(segment[2] >> 4), segment[3]
    # The last byte is the point transform.
    if table is None or not 1 <= predictor <= 7 or segment[5]:
        return None
    return _Scan(at, table, predictor, precision)


def _stuffed(data: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Indices of the bytes of 255 that a stuffed 0 follows, and where the data ends.

    None where another marker than the image's end comes first.
    """
    marked = np.flatnonzero(data[:-1] == 0xFF)
    marks = np.flatnonzero(data[marked + 1])
    if not len(marks):
        return None
    first = marks[0]
    end = after = int(marked[first])
    while after + 1 < len(data) and data[after + 1] == 0xFF:  # fill bytes
        after += 1
    if data[after + 1 : after + 2].tobytes() != b"\xd9":
        return None
    return marked[:first], end


def _differences(image: np.ndarray, scan: _Scan) -> np.ndarray:
    """Each pixel less what its neighbours predict, modulo 65,536 (T.81, table H.1)."""
    differences = image.copy()
    left, above, corner = image[1:, :-1], image[:-1, 1:], image[:-1, :-1]
    if scan.predictor == 1:
        differences[1:, 1:] -= left
    elif scan.predictor == 2:
        differences[1:, 1:] -= above
    elif scan.predictor == 3:
        differences[1:, 1:] -= corner
    else:
        a, b, c = (part.astype(np.int32) for part in (left, above, corner))
        expected = {
            4: lambda: a + b - c,
            5: lambda: a + (b - c >> 1),
            6: lambda: b + (a - c >> 1),
            7: lambda: a + b >> 1,
        }[scan.predictor]()
        differences[1:, 1:] -= expected.astype(np.uint16)
    # The first row is predicted from the left, the first column from above.
    differences[0, 1:] -= image[0, :-1]
    differences[1:, 0] -= image[:-1, 0]
    differences[:1, 0] -= np.uint16(1 << scan.precision - 1)
    return differences


@lru_cache(16)
def _codes(table: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The code of each category of a Huffman table, and the bits that each difference takes.

    Args:
        table: the numbers of codes of 1 to 16 bits, then the categories in the codes' order.

    Returns:
        (17,) codes, and (65536,) lengths in bits of code and magnitude; 0 where there is no code.
    """
    codes, lengths = np.zeros(17, np.int64), np.zeros(17, np.uint8)
    categories, code = iter(table[16:]), 0
    for length, count in enumerate(table[:16], 1):
        for category in [next(categories, 17) for _ in range(count)]:
            if category < 17:
                codes[category], lengths[category] = code, length
            code += 1
        code <<= 1
    sizes = lengths[_CATEGORY]
    # A difference of 32,768 needs no more than its category.
    magnitudes = np.where(_CATEGORY < 16, _CATEGORY, 0).astype(np.uint8)
    return codes, np.where(sizes > 0, sizes + magnitudes, 0).astype(np.uint8)


def _stand_there(
    data: np.ndarray,
    stuffed: np.ndarray,
    offsets: np.ndarray,
    differences: np.ndarray,
    codes: np.ndarray,
    sizes: np.ndarray,
) -> bool:
    """Whether the bits at some offsets are those of some differences.

    Args:
        data: (n,) bytes of the scan.
        stuffed: where a byte follows that was put in.
        offsets: in bits, without those bytes.
        differences: as many, modulo 65,536.
        codes: of each category.
        sizes: of each difference, in bits.
    """
    categories = _CATEGORY[differences].astype(np.int64)
    magnitudes = np.where(categories < 16, categories, 0)
    signed = differences.astype(np.uint16).view(np.int16).astype(np.int64)
    # Of a negative one, the lowest bits of it less 1.
    extra = np.where(signed < 0, signed - 1, signed) & ((1 << magnitudes) - 1)
    expected = codes[categories] << magnitudes | extra
    # A byte's index less the number of bytes that were put in before it.
    shifts = stuffed - np.arange(len(stuffed))
    there = np.zeros(len(offsets), np.int64)
    for step in range(5):  # 16 bits of code and 15 of magnitude, from any bit of the first byte
        index = (offsets >> 3) + step
        index += np.searchsorted(shifts, index)
        there = there << 8 | np.where(index < len(data), data.take(index, mode="clip"), 0)
    size = sizes[differences].astype(np.int64)
    there = there >> (40 - (offsets & 7) - size) & ((1 << size) - 1)
    return bool((there == expected).all())
