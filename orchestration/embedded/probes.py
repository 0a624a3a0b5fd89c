"""How to see that a service answers, with nothing but the standard library."""

from __future__ import annotations

import http.client
import socket
import subprocess
from pathlib import Path

TIMEOUT_S = 1.0


def is_ready(probe: list[str], ready_file: Path, pid: int) -> bool:
    """Whether a process is ready for work.

    Args:
        probe: ``["postgres", pg_isready, port]``, ``["redis", port, password]``,
            ``["http", port, path]`` or, for our own processes, nothing: they write ``ready_file``.
        ready_file: Where our own processes write their number.
        pid: The process that is meant.
    """
    try:
        match probe:
            case ["postgres", program, port]:
                return answers_postgres(program, int(port))
            case ["redis", port, password]:
                return answers_redis(int(port), password)
            case ["http", port, path]:
                return answers_http(int(port), path)
            case _:
                return ready_file.read_text() == str(pid)
    except (OSError, http.client.HTTPException, subprocess.SubprocessError):
        return False


def answers_postgres(program: str, port: int) -> bool:
    """Whether Postgres takes connections; while it recovers it refuses them."""
    command = [program, "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
    return subprocess.run(command, capture_output=True, timeout=3, check=False).returncode == 0


def answers_redis(port: int, password: str) -> bool:
    """Whether Redis has loaded its file and answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
        answer = b""
        while answer.count(b"\r\n") < 2:
            part = connection.recv(256)
            if not part:
                return False
            answer += part
    return answer == b"+OK\r\n+PONG\r\n"


def answers_http(port: int, path: str) -> bool:
    """Whether a server answers a request; what it answers matters for MinIO's health path alone."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    finally:
        connection.close()
    return status == 200 if path != "/" else status < 500
