"""A server of one file, for tests of what is read from servers by range requests."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple


class Served(NamedTuple):
    """What `serve` gives.

    Attributes:
        address: of the file.
        asked: how many bytes each request asked for.
        faults: statuses with which the next requests are answered; 200 with all of the file, and
            206 with half of what was asked for.
    """

    address: str
    asked: list[int]
    faults: list[int]


@contextmanager
def serve(path: Path) -> Iterator[Served]:
    """Serves a file as it was when the server began."""
    content, asked, faults = path.read_bytes(), [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            first, last = map(int, re.findall(r"\d+", self.headers["Range"]))
            asked.append(last - first + 1)
            part, fault = content[first : last + 1], faults.pop(0) if faults else None
            if fault == 206:
                part = part[: len(part) // 2]
            elif fault is not None:
                part = content if fault == 200 else b""
            self.send_response(fault or 206)
            if fault in (None, 206):
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{server.server_port}/all.zip", asked, faults)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
