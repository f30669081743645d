"""Why a file cannot be stored as a slice."""


class SliceError(Exception):
    """Why a file cannot be stored as a slice; the message is the reason in the list of rejects.

    Rejects are counted by what stands before its first colon.
    """


def one_line(message: object) -> str:
    """A message of a library, which may quote a file, as one short line of printable text."""
    text = f"{type(message).__name__}: {message}" if isinstance(message, Exception) else message
    line = " ".join(str(text).split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() else " " for c in line)
    return line[:200]
