"""Numbers that decide how fast a job is, and nothing else: no result depends on them."""

#: DICOM files of a study that the disk is asked for while one is decoded.
FILES_AHEAD = 4

#: Bytes of memory for the chunks of a study, enough for some 400 slices of 256 × 256. Those that do
#: not fit go through the pool's pipe.
SHARED_BYTES = 32 * 2**20

#: Bytes written at a time: one system call per slice would take twice as long.
WRITTEN_BYTES = 2**20

#: Batches of slices that the disk is asked for while one is read; at least one per loading process.
SLICE_BATCHES_AHEAD = 2

#: Batches that each of several loading processes reads ahead.
PREFETCHED = 2

#: Batches of studies that the disk is asked for while one is read.
STUDY_BATCHES_AHEAD = 1

#: Rows of features whose float32 values stay in a processor's cache.
ROWS_TOGETHER = 256


def loading_processes(threads: int, fabric) -> int:
    """Number of loading processes per training process.

    None on a CPU: reading is a hundredth of a network's work there, and after a fork the kernel
    copies every page that either process writes to.

    Args:
        threads: of the job. On a GPU all of them load.
        fabric: Lightning's ``Fabric``, the devices.
    """
    return max(1, threads // fabric.world_size) if fabric.device.type == "cuda" else 0


def inference_batch_size(on_cpu: int, fabric) -> int:
    """Slices per batch where nothing is trained; fewer than 256 leave a GPU idle.

    Args:
        on_cpu: slices per batch on a CPU.
        fabric: Lightning's ``Fabric``, the devices.
    """
    return 256 if fabric.device.type == "cuda" else on_cpu
