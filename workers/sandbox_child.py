"""The sandbox's child: reads requests from stdin, answers on stdout, trusts neither file nor library.

Started by ``workers.sandbox`` as ``python -m workers.sandbox_child``. It limits itself before it reads
anything, never imports torch, and imports the pixel libraries when the first picture is asked for, so
that a child that only reads headers is up in about a tenth of a second.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import struct
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, BinaryIO

FRAME = struct.Struct(">I")
"""Length of the JSON document that follows; its ``blobs`` lists the lengths of the raw bytes after it."""


def limit_resources(memory_bytes: int, parent_pid: int) -> None:
    """Bound memory, files and processes, and die with the parent."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    # A terminal's Ctrl-C is the parent's affair: it closes our stdin when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    if parent_pid:
        _die_with_parent(parent_pid)


def _die_with_parent(parent_pid: int) -> None:
    """Ask Linux for SIGKILL when the parent's thread ends; elsewhere the end of stdin has to do."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the call
        os._exit(0)


def _read_exactly(stream: BinaryIO, count: int) -> bytes | None:
    data = stream.read(count)
    return data if len(data) == count else None


def _feed(stream: BinaryIO, requests: SimpleQueue[dict[str, Any]]) -> None:
    """Pass requests on; at the end of stdin leave at once, even in the middle of a decode."""
    while (head := _read_exactly(stream, FRAME.size)) is not None:
        body = _read_exactly(stream, FRAME.unpack(head)[0])
        if body is None:
            break
        requests.put(json.loads(body))
    os._exit(0)


def _read_header(request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    from models.radiograph.header import read_header
    from models.radiograph.limits import Limits

    header = read_header(request["path"], Limits(**request["limits"]))
    return {"header": header.to_json()}, []


def _render(request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    import cv2

    from models.radiograph.limits import Limits
    from models.radiograph.rendering import render

    cv2.setNumThreads(1)
    rendered = render(request["path"], request["rendering"], request["size"], Limits(**request["limits"]))
    document = {
        "size": rendered.image.shape[0],
        "preview_rows": rendered.preview.shape[0],
        "preview_columns": rendered.preview.shape[1],
        "notes": list(rendered.notes),
        "source_rows": rendered.source_rows,
        "source_columns": rendered.source_columns,
        "excess_samples": rendered.excess_samples,
    }
    return document, [rendered.image.tobytes(), rendered.preview.tobytes()]


_CALLS: dict[str, Callable[[dict[str, Any]], tuple[dict[str, Any], list[bytes]]]] = {
    "read_header": _read_header,
    "render": _render,
}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library says in its own way that an allocation failed: OpenCV, or the dynamic loader."""
    opencv_no_memory = -4
    if getattr(error, "code", None) == opencv_no_memory:
        return True
    said = str(error).lower()
    return any(sign in said for sign in ("insufficient memory", "failed to map", "cannot allocate"))


def answer(request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Do one call. Every refusal and error becomes a code; no value of the file is in any of them."""
    from models.radiograph.reasons import Refused

    try:
        document, blobs = _CALLS[request["call"]](request)
        return {"ok": True, **document}, blobs
    except Refused as refusal:
        return {"ok": False, "refused": refusal.code, "tags": list(refusal.tags)}, []
    except MemoryError:
        return {"ok": False, "refused": "sandbox_memory", "tags": []}, []
    except OSError as error:
        if error.errno == errno.ENOMEM:  # the file could not be mapped
            return {"ok": False, "refused": "sandbox_memory", "tags": []}, []
        return {"ok": False, "os_error": error.errno or 0}, []
    except ValueError as error:
        return {"ok": False, "value_error": type(error).__name__}, []
    except BaseException as error:
        if is_out_of_memory(error):
            return {"ok": False, "refused": "sandbox_memory", "tags": []}, []
        return {"ok": False, "bug": type(error).__name__}, []


def peak_kib() -> int:
    """Largest resident set of this process.

    ``getrusage`` would report the parent's, which a process takes over through ``exec``.
    """
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Serve until stdin ends."""
    memory_bytes, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    limit_resources(memory_bytes, parent_pid)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever a library prints must not land between the frames.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_feed, args=(sys.stdin.buffer, requests), daemon=True).start()
    import warnings

    warnings.simplefilter("ignore")
    while True:
        document, blobs = answer(requests.get())
        document["blobs"] = [len(blob) for blob in blobs]
        document["peak_kib"] = peak_kib()
        body = json.dumps(document).encode()
        replies.write(FRAME.pack(len(body)) + body)
        for blob in blobs:
            replies.write(blob)
        replies.flush()


if __name__ == "__main__":
    main()
