"""Processes that decode studies side by side."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import cycle
from mmap import mmap
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from clotline.data.chunks import Chunk
from clotline.data.dicom.isolation import read_apart, read_in_time
from clotline.data.study import DecodedStudy, decode_study
from clotline.grid import PUBLISHED, SIZE, Grid
from clotline.job.processes import end_with_parent, shared_memory
from clotline.job.speed import SHARED_BYTES
from clotline.labels import STUDY_UID

log = logging.getLogger("clotline")


def decode_studies(
    studies: Iterable[pd.DataFrame], folder: str | Path, workers: int, grid: Grid = PUBLISHED
) -> Iterator[DecodedStudy]:
    """Decodes studies in parallel and yields them in order, few at a time in memory.

    A file can make native decoders crash or run for ever. So even a single worker is a process of
    its own; when one dies, the studies under way are decoded again with a process for each slice,
    and the slice that kills its process is rejected.

    Args:
        studies: each study's rows, as for `decode_study`.
        folder: the DICOM folder.
        workers: number of processes.
        grid: of the slices.

    Yields:
        Each study; its chunks are lost when the next one is asked for.

    Raises:
        ClotlineError: a worker process was killed from outside, as by a lack of memory.
    """
    decoders = _Decoders(workers, grid)
    waiting: deque[tuple[pd.DataFrame, Future, mmap]] = deque()
    try:
        for rows in studies:
            try:
                submitted = decoders.submit(rows, folder)
            except BrokenProcessPool:
                decoders = _Decoders(workers, grid)
                submitted = decoders.submit(rows, folder)
            waiting.append((rows, *submitted))
            if len(waiting) > decoders.ahead:
                yield _decoded(*waiting.popleft(), folder, grid)
        while waiting:
            yield _decoded(*waiting.popleft(), folder, grid)
    finally:
        decoders.shutdown()


class _Decoders:
    """Processes that decode studies, and memory for the chunks that they share with this one.

    Through the pool's pipe, which takes 64 KiB at a time, each process would wait for this one and
    for the others: two decode a fifth less.

    Attributes:
        ahead: studies that may be submitted beside the one in use.
    """

    def __init__(self, workers: int, grid: Grid):
        self.ahead = workers + 1
        self._grid = grid
        size = SHARED_BYTES * grid.size**2 // SIZE**2
        memories = [shared_memory(size) for _ in range(self.ahead + 1)]
        # Forked, so that the memory is theirs too.
        self._pool = ProcessPoolExecutor(
            workers, get_context("fork"), initializer=_start_decoder, initargs=(memories,)
        )
        self._next = cycle(enumerate(memories))

    def submit(self, rows: pd.DataFrame, folder: str | Path) -> tuple[Future, mmap]:
        """Gives what `_decode_into` will return, and the memory that it fills."""
        number, memory = next(self._next)
        return self._pool.submit(_decode_into, number, rows, folder, self._grid), memory

    def shutdown(self) -> None:
        """Ends the processes."""
        self._pool.shutdown(cancel_futures=True)


#: In a process of the pool: what it shares with the one that started it.
_memories: list[mmap] = []


def _start_decoder(memories: list[mmap]) -> None:
    _memories[:] = memories
    end_with_parent()


class _SharedChunk(NamedTuple):
    """A chunk whose content lies in shared memory."""

    start: int
    stop: int
    checksum: int


def _decode_into(number: int, rows: pd.DataFrame, folder: str | Path, grid: Grid) -> DecodedStudy:
    """Decodes a study; its chunks are `_SharedChunk` as far as the memory goes."""
    study, memory = decode_study(rows, folder, read_in_time, grid), _memories[number]
    stop = 0
    for index, (content, checksum) in enumerate(study.chunks):
        start, stop = stop, stop + len(content)
        if stop > len(memory):
            break
        memory[start:stop] = content
        study.chunks[index] = _SharedChunk(start, stop, checksum)
    return study


def _decoded(
    rows: pd.DataFrame, future: Future, memory: mmap, folder: str | Path, grid: Grid
) -> DecodedStudy:
    try:
        study = future.result()
    except BrokenProcessPool:
        uid = rows[STUDY_UID].iloc[0]
        log.warning("a decoding process died: study %s is read again, slice by slice", uid)
        return decode_study(rows, folder, read_apart, grid)
    content = memoryview(memory)
    for index, chunk in enumerate(study.chunks):
        if isinstance(chunk, _SharedChunk):
            study.chunks[index] = Chunk(content[chunk.start : chunk.stop], chunk.checksum)
    return study
