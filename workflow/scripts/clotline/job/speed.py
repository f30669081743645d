"""Numbers that decide how fast a job is and nothing else, so that no result hangs on them."""

#: DICOM files of a study that the disk is asked for while one is decoded.
FILES_AHEAD = 4

#: Bytes of memory for the chunks of a study, enough for some 400 slices. The further ones of a
#: larger study go through the pool's pipe.
SHARED_BYTES = 32 * 2**20

#: Bytes that are written at a time: a system call for each slice would take twice as long.
WRITTEN_BYTES = 2**20

#: Batches of slices that the disk is asked for while one is read; where more processes read, one
#: for each.
SLICE_BATCHES_AHEAD = 2

#: Batches that each of several loading processes reads ahead.
PREFETCHED = 2

#: Batches of studies that the disk is asked for while one is read.
STUDY_BATCHES_AHEAD = 1

#: Rows of features whose float32 values stay in a processor's cache.
ROWS_TOGETHER = 256


def loading_processes(threads: int, fabric) -> int:
    """How many processes load for each that trains.

    On a CPU none: reading is a hundredth of a network's work there, and what a process forks, and
    both go on writing to, the kernel copies page by page.

    Args:
        threads: of the job. On a GPU all of them load.
        fabric: Lightning's ``Fabric``, the devices.
    """
    return max(1, threads // fabric.world_size) if fabric.device.type == "cuda" else 0


def inference_batch_size(on_cpu: int, fabric) -> int:
    """Slices in a batch that is not trained on; a GPU has enough to do with no fewer than 256.

    Args:
        on_cpu: what it is on a CPU.
        fabric: Lightning's ``Fabric``, the devices.
    """
    return 256 if fabric.device.type == "cuda" else on_cpu
