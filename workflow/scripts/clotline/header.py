"""The elements of a DICOM header, each converted when it is asked for: damage shows only then."""

from contextlib import suppress
from functools import lru_cache

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pydicom.valuerep import AMBIGUOUS_VR

#: Longest element whose conversion is remembered, in bytes.
MAX_REMEMBERED = 256


class Header:
    """The values of a file's elements by their keywords, as pydicom converts them."""

    def __init__(self, dataset: Dataset, syntax: UID):
        """Takes what was read of a file.

        Args:
            dataset: its elements, none of them converted.
            syntax: its TransferSyntaxUID.
        """
        self.syntax = syntax
        self._dataset = dataset
        # By plain numbers: pydicom's tags take long to compare.
        self._elements = {int(tag): element for tag, element in dataset.items()}
        self._values = {}

    def __contains__(self, keyword: str) -> bool:
        return tag_for_keyword(keyword) in self._elements

    def __getitem__(self, keyword: str):
        if keyword not in self._values:
            self._values[keyword] = self._convert(tag_for_keyword(keyword))
        return self._values[keyword]

    def get(self, keyword: str, default=None):
        """The value of an element, which is None or empty where the element is; else a default."""
        if keyword not in self:
            return default
        try:
            return self[keyword]
        except AttributeError:  # an element that decides how to read this one is missing
            return default

    def numbers(self, keyword: str) -> np.ndarray:
        """The values of an element of decimal strings (DS), float64; NaN where it is missing.

        Raises:
            TypeError, ValueError: they are no numbers.
        """
        element = self._elements.get(tag_for_keyword(keyword))
        # pydicom makes an object of each, which takes four times as long.
        if isinstance(element, RawDataElement) and element.VR == "DS" and element.value:
            with suppress(ValueError):
                return np.array([float(number) for number in element.value.split(b"\\")])
        return np.array(self.get(keyword), dtype=float)

    def vr(self, keyword: str) -> str:
        """The value representation of an element."""
        return self._dataset[BaseTag(tag_for_keyword(keyword))].VR

    def _convert(self, tag: int):
        element = self._elements[tag]
        if isinstance(element, RawDataElement) and element.length <= MAX_REMEMBERED:
            charset = self._dataset.original_character_set
            converted = _converted(
                *(tag, element.VR, element.length, element.value),
                *(element.is_implicit_VR, element.is_little_endian),
                charset if isinstance(charset, str) else tuple(charset),
            )
            # Else other elements decide what it is.
            if converted.VR not in AMBIGUOUS_VR:
                return converted.value
        return self._dataset[BaseTag(tag)].value


@lru_cache(4096)
def _converted(
    tag: int,
    vr: str | None,
    length: int,
    value: bytes | None,
    is_implicit: bool,
    is_little_endian: bool,
    charset: str | tuple[str, ...],
) -> DataElement:
    """One element as pydicom converts it; most are the same in all slices of a study."""
    raw = RawDataElement(BaseTag(tag), vr, length, value, 0, is_implicit, is_little_endian)
    return convert_raw_data_element(
        raw, encoding=charset if isinstance(charset, str) else list(charset)
    )
