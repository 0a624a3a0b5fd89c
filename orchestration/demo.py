"""``make demo``: one night from an empty machine, with drawn studies and a few odd objects.

Everything is done by the commands that a user has, shown as they run, and by a plain S3 client that knows
nothing of Nightread. The uploader keeps its own list; at the end the list is held against what Nightread
says became of each object, and a difference is an error.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HOME = "NIGHTREAD_HOME"
DEMO_RELEASE = "phantom-demo-0"
EXEMPLARS = 200
STUDIES = 24
STAT_STUDIES = 3
_SETTINGS = {"NIGHTREAD_INTAKE__QUIET_S": "3", "NIGHTREAD_INTAKE__STAT_QUIET_S": "1"}
"""A night in a hurry: a study counts as complete after three quiet seconds."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One line of the uploader's list."""

    key: str
    sha256: str
    expected: str
    """State of the object; ``ineligible`` for a sound instance whose study must abstain."""
    what: str


def main() -> int:
    """Run the demonstration; 0 if every object came to the outcome that it must have."""
    started = time.monotonic()
    home = Path(os.environ.setdefault(HOME, str(Path.home() / ".nightread-demo")))
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    _say(f"A night with drawn studies, in {home}. They are drawings, not patients.")
    _run("up", "--timeout", "600")
    if not any(one["trained"] for one in _json("release", "list")):
        _run("release", "add")
    if not any(one["trained"] and one["active"] for one in _json("release", "list")):
        # A home of a time when the demonstration read with random weights.
        _run("release", "promote", DEMO_RELEASE, "--no-gate")
    night = sum(1 for _ in (home / "demo").glob("uploaded-*.jsonl")) + 1
    with tempfile.TemporaryDirectory(prefix="nightread-demo-") as name:
        folder = Path(name)
        if _json("exemplar", "count")["exemplars"] < EXEMPLARS:
            archive = str(folder / "archive")
            _run("phantom", "generate", "--seed", "1", "--n", str(EXEMPLARS), "--exemplars", archive)
            _run("exemplar", "import", archive)
        _run("phantom", "generate", "--seed", str(1000 + night), "--n", str(STUDIES), str(folder / "night"))
        sent = _upload(folder / "night", home, night)
    _run("drain", "--timeout", "240")
    documents = _json("worklist")
    _show_worklist(documents, sent)
    wrong = _check(sent, documents)
    _say(f"\nThe demonstration took {time.monotonic() - started:.0f} s.")
    if wrong:
        _say(f"{wrong} objects did not come to the outcome that they must have.")
        return 1
    _say(f"Left running: the services and workers of {home}. To go on:")
    for line in (
        f"export {HOME}={home} PATH={Path(sys.executable).parent}:$PATH",
        "nightread worklist        the whole worklist",
        "nightread object list     what became of each object",
        "nightread sql 'select state, count(*) from analytics.worklist group by state'",
        "nightread down            stops everything",
    ):
        _say(f"  {line}")
    return 0


def _run(*arguments: str) -> None:
    _say(f"\n$ nightread {' '.join(arguments)}")
    subprocess.run([sys.executable, "-m", "orchestration.cli", *arguments], check=True)


def _json(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", *arguments, "--json"], check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def _say(text: str) -> None:
    print(text, flush=True)


def _upload(folder: Path, home: Path, night: int) -> list[Sent]:
    """Put the studies and the odd objects into the bucket, one by one, each first on the list."""
    from minio import Minio

    from training.datasets.phantom.odd import odd_objects

    live = _json("env")
    client = Minio(
        live["NIGHTREAD_OBJECTS__ENDPOINT"],
        access_key=live["NIGHTREAD_OBJECTS__ACCESS_KEY"],
        secret_key=live["NIGHTREAD_OBJECTS__SECRET_KEY"],
        secure=False,
        region="us-east-1",
    )
    bucket = live["NIGHTREAD_OBJECTS__STUDIES_BUCKET"]
    objects = list(_night(folder, night))
    files = sorted(folder.glob("dicom/*/*.dcm"))
    objects += [
        (f"night-{night}/odd/{odd.key}", odd.content, odd.expected_state, odd.name)
        for odd in odd_objects(1000 + night, files)
    ]
    _say(f"\nPutting {len(objects)} objects into the bucket {bucket} with a plain S3 client.")
    listed = home / "demo" / f"uploaded-{night}.jsonl"
    listed.parent.mkdir(exist_ok=True)
    sent = []
    with listed.open("a", encoding="utf-8") as ledger:
        for number, (key, content, expected, what) in enumerate(objects, start=1):
            one = Sent(key=key, sha256=hashlib.sha256(content).hexdigest(), expected=expected, what=what)
            ledger.write(json.dumps(asdict(one)) + "\n")
            ledger.flush()
            client.put_object(bucket, key, io.BytesIO(content), len(content))
            sent.append(one)
            _progress(number, len(objects))
    return sent


def _night(folder: Path, night: int) -> Iterable[tuple[str, bytes, str, str]]:
    for number, line in enumerate((folder / "reports.jsonl").read_text(encoding="utf-8").splitlines()):
        prefix = "stat/" if number < STAT_STUDIES else ""
        for name in json.loads(line)["files"]:
            content = (folder / name).read_bytes()
            yield f"{prefix}night-{night}/{number:02d}/{Path(name).name}", content, "instance", "phantom"


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        bar = "#" * (40 * done // total)
        end = "\n" if done == total else ""
        print(f"\r  [{bar:<40}] {done}/{total}", end=end, file=sys.stderr, flush=True)
    elif done % 10 == 0 or done == total:
        print(f"  {done} of {total}", file=sys.stderr, flush=True)


def _show_worklist(documents: Sequence[dict[str, Any]], sent: Sequence[Sent]) -> None:
    from orchestration.cli.night import print_worklist

    _say(f"\n$ nightread worklist    ({len(documents)} studies)")
    print_worklist(list(documents))


def _check(sent: Sequence[Sent], documents: Sequence[dict[str, Any]]) -> int:
    """Hold the uploader's list against the outcomes; returns how many differ."""
    outcomes: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for row in _json("object", "list"):
        outcomes.setdefault((row["key"], row["sha256"]), []).append(row)
    by_study = {one["study_instance_uid"]: one for one in documents}
    wrong = 0
    counts: Counter[tuple[str, str]] = Counter()
    for one in sent:
        rows = outcomes.get((one.key, one.sha256), [])
        found = rows[0]["state"] if len(rows) == 1 else "lost" if not rows else "repeated"
        study = by_study.get(rows[0]["study_instance_uid"]) if rows else None
        if found == "instance" and study is not None and study["state"] == "ineligible":
            found = "ineligible"
        counts[one.expected, found] += 1
        if found != one.expected:
            wrong += 1
            _say(f"  {one.what}: expected {one.expected}, found {found}")
    _say("\nThe uploader's list against the outcomes:")
    for (expected, found), number in sorted(counts.items()):
        mark = "as it must be" if expected == found else "WRONG"
        _say(f"  {number:>3} sent as {expected:<12} found {found:<12} {mark}")
    states = Counter(one["state"] for one in documents)
    _say(f"  {len(sent)} objects sent, {len(sent) - wrong} right; studies: {_counted(states)}")
    return wrong


def _counted(states: Counter[str]) -> str:
    return ", ".join(f"{number} {state}" for state, number in sorted(states.items()))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        print(f"The demonstration stopped: a command failed ({error.returncode}).", file=sys.stderr)
        sys.exit(1)
