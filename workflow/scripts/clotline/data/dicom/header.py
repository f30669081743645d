"""The elements of a DICOM header, each converted when it is asked for: damage shows only then."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache

import numpy as np
from pydicom.datadict import keyword_dict
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pydicom.valuerep import AMBIGUOUS_VR

#: The length of an element that ends with a delimiter.
UNDEFINED_LENGTH = 0xFFFFFFFF

#: Longest element whose conversion is remembered, in bytes.
MAX_REMEMBERED = 256

#: Value representations of which pydicom gives the bytes as they are.
_BYTES_VRS = ("OB", "OW")

#: Value representations of numbers that are written as text.
_NUMBER_VRS = {"DS": float, "IS": int}


def put_element(elements: dict[int, RawDataElement], keyword: str, vr: str, value: bytes) -> None:
    """Puts an element among others as if it had been read of a file."""
    tag = keyword_dict[keyword]
    elements[tag] = RawDataElement(BaseTag(tag), vr, len(value), value, 0, False, True)


class Header:
    """The values of a file's elements by their keywords, as pydicom converts them.

    Attributes:
        syntax: the file's TransferSyntaxUID, or what its data set is encoded in if that is another.
        remarks: what is wrong with the file and was put up with, a sentence each.
    """

    def __init__(
        self,
        elements: Mapping[int, DataElement | RawDataElement],
        syntax: UID,
        charset: str | Sequence[str],
    ):
        """Takes what was read of a file.

        Args:
            elements: by the numbers of their tags: pydicom's tags take long to compare.
            syntax: the file's TransferSyntaxUID.
            charset: how their text is encoded, by pydicom's names.
        """
        self.syntax = syntax
        self._elements = elements
        self._charset = charset if isinstance(charset, str) else tuple(charset)
        self._values = {}
        self.remarks: list[str] = []

    def __contains__(self, keyword: str) -> bool:
        return keyword_dict[keyword] in self._elements

    def __getitem__(self, keyword: str):
        if keyword not in self._values:
            self._values[keyword] = self._convert(keyword_dict[keyword])
        return self._values[keyword]

    def get(self, keyword: str, default=None):
        """The value of an element, which is None or empty where the element is; else a default."""
        if keyword not in self:
            return default
        try:
            return self[keyword]
        except AttributeError:  # an element that decides how to read this one is missing
            return default

    def number(self, keyword: str) -> float | None:
        """The number in an element; None where it is missing, empty or not one finite number."""
        try:
            values = self.numbers(keyword)
        except (OverflowError, TypeError, ValueError):
            return None
        return values[0] if len(values) == 1 and math.isfinite(values[0]) else None

    def numbers(self, keyword: str) -> list[float]:
        """The values of an element of numbers; NaN where it is missing.

        Raises:
            OverflowError, TypeError, ValueError: they are no numbers.
        """
        element = self._elements.get(keyword_dict[keyword])
        convert = _NUMBER_VRS.get(element.VR) if isinstance(element, RawDataElement) else None
        if convert and element.value:
            # pydicom, which puts up with more, makes an object of each.
            with suppress(OverflowError, ValueError):
                return list(_numbers(element.value, convert))
        return np.array(self.get(keyword), dtype=float).reshape(-1).tolist()

    @property
    def elements(self) -> Mapping[int, DataElement | RawDataElement]:
        """The elements as they were read, by the numbers of their tags."""
        return self._elements

    @property
    def charset(self) -> str | tuple[str, ...]:
        """How their text is encoded, by pydicom's names."""
        return self._charset

    @property
    def tags(self) -> list[int]:
        """The numbers of the elements' tags, in the order of the file."""
        return list(self._elements)

    def is_encapsulated(self, keyword: str) -> bool:
        """Whether an element is a sequence of fragments: its length is not defined."""
        element = self._elements.get(keyword_dict[keyword])
        return isinstance(element, RawDataElement) and element.length == UNDEFINED_LENGTH

    def vr(self, keyword: str) -> str:
        """The value representation of an element."""
        return self._dataset[BaseTag(keyword_dict[keyword])].VR

    def _convert(self, tag: int):
        element = self._elements[tag]
        if isinstance(element, RawDataElement):
            if element.VR in _BYTES_VRS and element.value:
                return element.value
            if element.length <= MAX_REMEMBERED:
                converted = _converted(
                    *(tag, element.VR, element.length, element.value),
                    *(element.is_implicit_VR, element.is_little_endian, self._charset),
                )
                # Else other elements decide what it is.
                if converted.VR not in AMBIGUOUS_VR:
                    return converted.value
        return self._dataset[BaseTag(tag)].value

    @cached_property
    def _dataset(self) -> Dataset:
        """All elements: how some are read depends on others."""
        dataset = Dataset({element.tag: element for element in self._elements.values()})
        dataset.set_original_encoding(
            *(self.syntax.is_implicit_VR, self.syntax.is_little_endian, _for_pydicom(self._charset))
        )
        return dataset


def _for_pydicom(charset: str | tuple[str, ...]) -> str | list[str]:
    return charset if isinstance(charset, str) else list(charset)


@lru_cache(4096)
def _numbers(text: bytes, convert: type[int] | type[float]) -> tuple[float, ...]:
    """Numbers that are written as text; most are the same in all slices of a study."""
    return tuple(float(convert(number)) for number in text.split(b"\\"))


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
    return convert_raw_data_element(raw, encoding=_for_pydicom(charset))
