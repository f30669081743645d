"""Reading a slice so that no file can crash or hang the process that reads it.

DICOM decoders are native code: a damaged file can end the process without an exception, or keep
it in a loop that no exception leaves.
"""

import signal
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection

from clotline.data.dicom.ct_slice import Slice, read_slice
from clotline.data.dicom.rejection import SliceError
from clotline.errors import ClotlineError
from clotline.job.processes import end_with_parent

#: Processor time for one file, in seconds; the slowest good one takes less than a second.
TIME_LIMIT_S = 60


def read_in_time(path: str, **options) -> Slice:
    """`read_slice`, but the process ends by SIGVTALRM after `TIME_LIMIT_S`.

    Args:
        path: the file.
        options: further arguments of `read_slice`.
    """
    # The default action of the signal works while native code runs; a handler's would not.
    signal.setitimer(signal.ITIMER_VIRTUAL, TIME_LIMIT_S)
    try:
        return read_slice(path, **options)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def read_apart(path: str, read=read_in_time, **options) -> Slice:
    """Reads one file, or one frame of it, in a process of its own.

    Args:
        path: the file.
        read: reads it there.
        options: further arguments of `read_slice`.

    Raises:
        SliceError: as `read_slice`, and where the file kills the process.
        ClotlineError: the process was killed from outside.
    """
    receiver, sender = Pipe(duplex=False)
    process = Process(target=_send, args=(read, path, options, sender))
    process.start()
    # Else the pipe would stay open when the process dies.
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        outcome = None
    process.join()
    receiver.close()
    if outcome is None:
        raise _why_dead(process.exitcode)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _send(read, path: str, options: dict, sender: Connection) -> None:
    end_with_parent()
    try:
        sender.send(read(path, **options))
    except Exception as error:  # goes on where the slice is waited for
        sender.send(error)


def _why_dead(exit_code: int) -> Exception:
    if exit_code == -signal.SIGKILL:
        return ClotlineError(
            "a decoding process was killed, most often for lack of memory: give the job more "
            "memory or fewer threads"
        )
    if exit_code == -signal.SIGVTALRM:
        return SliceError(f"decoding takes too long: more than {TIME_LIMIT_S} s of processor time")
    name = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
    return SliceError(f"decoding crashes: {name}")
