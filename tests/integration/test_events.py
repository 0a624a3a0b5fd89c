"""An object put into the store starts the work by itself: no clock, no sweep."""

from __future__ import annotations

import io
import json
import random
from typing import Any
from urllib.parse import quote_plus

import pytest
import urllib3

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("has_events")]

STARTS_WITHIN_S = 2.0


def _started(hospital: Any, key: str) -> bool:
    return bool(
        hospital.rows(
            "SELECT FROM step JOIN object ON object.id = step.object_id "
            "WHERE object.key = %s AND step.stage = 'receive' AND step.attempt > 0",
            key,
        )
    )


@pytest.fixture
def without_beat(hospital: Any, films: Any) -> Any:
    """Beat is stopped, and the first message after a start has been taken."""
    hospital.put("warm/up.dcm", films.film("warm-up"))
    hospital.until(lambda: _started(hospital, "warm/up.dcm"), "the first object is received")
    with hospital.stopped("beat"):
        yield hospital


@pytest.mark.parametrize("key", ["events/plain.dcm", "events/a b+%é/x.dcm", "events/100%25 & more;=.dcm"])
def test_a_put_starts_receive_within_two_seconds(without_beat: Any, films: Any, key: str) -> None:
    without_beat.put(key, films.film(f"event {key}"))
    took_s = without_beat.until(lambda: _started(without_beat, key), f"{key} is received", STARTS_WITHIN_S)
    assert took_s < STARTS_WITHIN_S
    without_beat.until(lambda: without_beat.objects(key)[0]["state"] == "instance", "it is filed")
    assert without_beat.objects(key)[0]["source"] == "event"


def test_a_multipart_upload_starts_receive_within_two_seconds(without_beat: Any, films: Any) -> None:
    key = "events/multipart.dcm"
    # A private element pads the film to 12 MB; parts of 5 MiB are the smallest that S3 allows.
    content = films.film("multipart", extra={"ImageComments": "x" * 10_000})
    content += b"\xe1\x7f\x10\x10OB\x00\x00" + (12_000_000).to_bytes(4, "little") + b"\0" * 12_000_000
    without_beat.store.put_object("studies", key, io.BytesIO(content), -1, part_size=5 * 1024 * 1024)
    took_s = without_beat.until(lambda: _started(without_beat, key), "it is received", STARTS_WITHIN_S)
    assert took_s < STARTS_WITHIN_S
    without_beat.until(lambda: without_beat.objects(key)[0]["state"] != "announced", "it has an outcome")
    (row,) = without_beat.objects(key)
    assert row["version"].endswith("-3"), "an ETag of three parts is no hash of the content"
    assert (row["state"], row["size_bytes"]) == ("instance", len(content))


def test_a_copy_within_the_store_is_an_event_too(without_beat: Any, films: Any) -> None:
    from minio.commonconfig import CopySource

    without_beat.put("events/origin.dcm", films.film("origin"))
    without_beat.store.copy_object("studies", "events/copy.dcm", CopySource("studies", "events/origin.dcm"))
    without_beat.until(
        lambda: [o["state"] for o in without_beat.objects("events/copy.dcm")] == ["duplicate"], "a duplicate"
    )


def test_every_event_five_times_in_random_order_gives_the_same_rows(hospital: Any, films: Any) -> None:
    keys = [f"again/{n} ä+.dcm" for n in range(6)]
    for n, key in enumerate(keys):
        hospital.put(key, films.film(f"again-{n}"))
    hospital.until(lambda: all(hospital.objects(k) for k in keys), "all are announced")
    hospital.drain()
    picture = (
        "SELECT (SELECT json_agg(o ORDER BY id) FROM object o) AS objects, "
        "(SELECT json_agg(s ORDER BY id) FROM step s) AS steps, "
        "(SELECT json_agg(s ORDER BY id) FROM study s) AS studies, "
        "(SELECT json_agg(r ORDER BY id) FROM reading r) AS readings"
    )
    (before,) = hospital.rows(picture)
    live = hospital.night.live()
    address = f"http://127.0.0.1:{live['NIGHTREAD_INTAKE__PORT']}/events"
    told = [row for key in keys for row in hospital.objects(key)] * 5
    random.Random(5).shuffle(told)
    http = urllib3.PoolManager()
    for row in told:
        record = {
            "eventName": "s3:ObjectCreated:Put",
            "s3": {
                "bucket": {"name": "studies"},
                "object": {"key": quote_plus(row["key"]), "eTag": row["version"], "size": row["size_bytes"]},
            },
        }
        answer = http.request(
            "POST",
            address,
            body=json.dumps({"Records": [record]}),
            headers={"Authorization": f"Bearer {live['NIGHTREAD_INTAKE__TOKEN']}"},
        )
        assert answer.status == 200
    hospital.drain()
    (after,) = hospital.rows(picture)
    assert after == before
