"""A planted patient name, id and object key are in no log, no Redis key or value and no error text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis
import urllib3

pytestmark = pytest.mark.slow

NAME, PATIENT_ID, KEY = "Zebulonplanted^Quorraplanted", "PLANTED-4711", "plantedkey-quorra"
WORDS = [b"zebulonplanted", b"quorraplanted", b"planted-4711", b"plantedkey", b"plantedtext"]


def _values(client: Any) -> Iterator[bytes]:
    """Every key and every value that Redis holds."""
    for key in client.scan_iter("*", count=500):
        yield key
        match client.type(key):
            case b"string":
                yield client.get(key) or b""
            case b"list":
                yield from client.lrange(key, 0, -1)
            case b"set":
                yield from client.smembers(key)
            case b"zset":
                yield from client.zrange(key, 0, -1)
            case b"hash":
                for field, value in client.hgetall(key).items():
                    yield field
                    yield value


def _found(text: bytes) -> list[bytes]:
    return [word for word in WORDS if word in text.lower()]


@pytest.fixture(scope="module")
def planted(hospital: Any, films: Any) -> Any:
    """Everything that goes wrong with an object goes wrong with one that is full of identifiers."""
    who = {"patient_name": NAME, "patient_id": PATIENT_ID}
    good = films.film("plant", **who)
    with hospital.stopped("worker-receive"):
        hospital.put(f"{KEY}/gone.dcm", films.film("plant-gone", **who))
        hospital.until(lambda: hospital.objects(f"{KEY}/gone.dcm"), "it is announced")
        hospital.store.remove_object("studies", f"{KEY}/gone.dcm")
    hospital.put(f"{KEY}/{NAME} {PATIENT_ID}.dcm", good)
    hospital.until(lambda: hospital.objects(f"{KEY}/{NAME} {PATIENT_ID}.dcm"), "it is announced")
    hospital.put(f"{KEY}/copy.dcm", good)
    hospital.put(f"{KEY}/conflict.dcm", films.film("plant", salt=1, **who))
    hospital.put(f"{KEY}/truncated.dcm", films.film("plant-truncated", **who)[:-20_000])
    hospital.put(f"{KEY}/text.dcm", f"plantedtext {NAME} {PATIENT_ID}".encode() * 50)
    hospital.put(f"{KEY}/_complete.json", f'{{"plantedtext": "{NAME}"'.encode())
    hospital.put(f"{KEY}/liar.dcm", films.film("plant-liar", extra={"Rows": 1024}, **who))
    hospital.put(f"{KEY}/odd.dcm", films.film("plant-odd", extra={"StudyDescription": "plantedtext"}, **who))
    live = hospital.night.live()
    for body in (f'{{"Records": [{{"plantedtext": "{NAME}"}}]}}', f"plantedtext {NAME}"):
        answer = urllib3.PoolManager().request(
            "POST",
            f"http://127.0.0.1:{live['NIGHTREAD_INTAKE__PORT']}/events",
            body=body,
            headers={"Authorization": f"Bearer {live['NIGHTREAD_INTAKE__TOKEN']}"},
        )
        assert answer.status == 400
    for statement, error in (
        ("INSERT INTO study (study_instance_uid, lane) VALUES (%s, 99999)", psycopg2.DataError),
        ("SELECT CAST(%s AS integer)", psycopg2.DataError),
        (
            "INSERT INTO object (bucket, key, version, size_bytes, lane, source, state) "
            "VALUES ('b', %s, 'v', 1, 1, 'x', 'nonsense')",
            psycopg2.IntegrityError,
        ),
        ("SELEKT %s", psycopg2.ProgrammingError),
    ):
        with hospital.night.database() as connection, pytest.raises(error):
            connection.cursor().execute(statement, (f"{NAME} {PATIENT_ID} {KEY}",))
    with pytest.raises(Exception, match="NoSuchKey"):
        hospital.store.get_object("studies", f"{KEY}/never")
    hospital.store.put_object("studies", f"{KEY}/empty.dcm", io.BytesIO(b""), 0)
    return hospital


def test_redis_holds_no_identifier_while_work_is_queued_and_in_no_message_ever(
    planted: Any, films: Any
) -> None:
    client = redis.Redis.from_url(planted.night.live()["NIGHTREAD_BROKER__URL"])
    with planted.stopped("worker-report"):
        planted.until(
            lambda: planted.rows("SELECT FROM step WHERE stage = 'report' AND state IN ('ready', 'leased')"),
            "work waits at report",
        )
        planted.until(lambda: client.llen("nightread:report") > 0, "messages wait at report")
        values = list(_values(client))
        assert any(b"workers.report" in value for value in values), "the messages were looked at"
        assert [_found(value) for value in values if _found(value)] == []
    planted.drain()
    # The append-only file is every key and value since the start.
    written = b"".join(f.read_bytes() for f in (planted.night.home / "redis").rglob("*") if f.is_file())
    assert b"workers.receive" in written
    assert _found(written) == []
    client.close()


def test_no_log_names_a_patient_or_a_key(planted: Any, films: Any) -> None:
    planted.drain()
    logs = {log.name: log.read_bytes() for log in Path(planted.night.home / "logs").iterdir()}
    assert {"postgres.log", "receiver.log", "worker-receive.log", "worker-report.log"} <= set(logs)
    assert b"batch_finished" in logs["worker-receive.log"]
    assert b"event_refused" in logs["receiver.log"]
    assert {name: _found(text) for name, text in logs.items() if _found(text)} == {}
    uid = films.uid("plant").encode()
    assert [name for name, text in logs.items() if uid in text] == [], "nor is a DICOM UID in any"


def test_reasons_are_codes_and_the_clear_text_of_a_failure_names_nobody(planted: Any) -> None:
    planted.drain()
    reasons = planted.rows(
        "SELECT reason FROM object UNION SELECT reason FROM step UNION SELECT reason FROM reading "
        "UNION SELECT reason FROM instance UNION SELECT reason FROM retrieval"
    )
    assert all(re.fullmatch("[a-z_]+", row["reason"]) for row in reasons if row["reason"] is not None)
    states = {
        row["key"].rpartition("/")[2]: row["state"]
        for row in planted.rows("SELECT key, state FROM object WHERE key LIKE %s", f"{KEY}/%")
    }
    assert states["copy.dcm"] == "duplicate"
    assert states["conflict.dcm"] == "conflict"
    assert states["gone.dcm"] == "gone"
    assert states["text.dcm"] == states["_complete.json"] == states["empty.dcm"] == "quarantined"
    printed = planted.night.run("worklist").stdout + planted.night.run("status").stdout
    assert _found(printed.encode()) == []
