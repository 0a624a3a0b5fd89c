"""The webhook: who may call it, what it makes of a notification, and what the store is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from db.engine import make_engine
from orchestration.receiver import make_receiver, objects_of
from orchestration.settings import Settings, load


def _record(key: str, event: str = "s3:ObjectCreated:Put", bucket: str = "studies", **fields: Any) -> Any:
    described = {"key": quote_plus(key), "size": 5, "eTag": "abc", **fields}
    return {"eventName": event, "s3": {"bucket": {"name": bucket}, "object": described}}


def _event(*records: Any) -> bytes:
    return json.dumps({"EventName": "x", "Key": "x", "Records": list(records)}).encode()


@pytest.fixture
def site(services: Any, clean_database: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("NIGHTREAD_HOME", str(services.home))
    monkeypatch.setenv("NIGHTREAD_INTAKE__MAX_BODY_BYTES", "20000")
    return load()


class Caller:
    """A client of the receiver, with what it rang and what stands in the database."""

    def __init__(self, site: Settings) -> None:
        self.rung: list[str] = []
        assert site.intake.token is not None
        assert site.database.url is not None
        self.client = TestClient(make_receiver(site, self.rung.append), raise_server_exceptions=False)
        self.token = site.intake.token.get_secret_value()
        self._engine = make_engine(site.database.url.get_secret_value())

    def post(self, body: bytes, token: str | None = None) -> Any:
        shown = f"Bearer {self.token}" if token is None else token
        return self.client.post("/events", content=body, headers={"Authorization": shown} if shown else {})

    def rows(self) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(text("SELECT * FROM object ORDER BY id")))

    def close(self) -> None:
        self._engine.dispose()


@pytest.fixture
def caller(site: Settings) -> Iterator[Caller]:
    made = Caller(site)
    with made.client:
        yield made
    made.close()


def test_an_event_is_written_down_answered_and_rung(caller: Caller) -> None:
    answer = caller.post(_event(_record("a/b.dcm", eTag="e1", size=7, versionId="v9")))
    assert (answer.status_code, answer.text) == (200, "announced\n")
    (row,) = caller.rows()
    assert (row.key, row.version, row.version_id, row.size_bytes) == ("a/b.dcm", "e1", "v9", 7)
    assert (row.state, row.source, row.lane) == ("announced", "event", 1)
    assert caller.rung == ["receive"]


def test_the_same_event_again_adds_nothing(caller: Caller) -> None:
    for _ in range(5):
        assert caller.post(_event(_record("a"), _record("a"))).status_code == 200
    assert len(caller.rows()) == 1


@pytest.mark.parametrize(
    "key", ["a b+%é/x.dcm", "100%25.dcm", "a+b", "日本語/ü.dcm", "a&b=c;d", "x" * 1024, "tab\there"]
)
def test_keys_come_encoded_and_are_decoded_once(caller: Caller, key: str) -> None:
    assert caller.post(_event(_record(key))).status_code == 200
    assert [row.key for row in caller.rows()] == [key]


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Bearer ", "Basic abc", "Bearer é"])
def test_a_wrong_or_missing_token_is_refused_and_nothing_is_read(caller: Caller, token: str) -> None:
    headers = {"Authorization": token.encode()} if token else {}
    answer = caller.client.post("/events", content=_event(_record("a")), headers=headers)
    assert (answer.status_code, answer.text) == (403, "the token is wrong\n")
    assert caller.rows() == []


def test_a_body_beyond_the_limit_is_refused(caller: Caller) -> None:
    answer = caller.post(b"x" * 20_001)
    assert (answer.status_code, answer.text) == (413, "the body is too large\n")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe",
        b"[]",
        b"5",
        b'{"Records": 5}',
        b'{"Records": "text"}',
        b'{"Records": [5]}',
        b'{"Records": [{"eventName": "s3:ObjectCreated:Put"}]}',
        b"[" * 15_000,
        _event(_record("a", size="many")),
        _event(_record("a", size=-1)),
        _event(_record("a", size=2**63)),
        _event(_record("")),
        _event(_record("a\x00b")),
        _event(_record("x" * 1025)),
        b'{"Records": [{"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "studies"}, '
        b'"object": {"key": "a\\ud800", "size": 1, "eTag": "e"}}}]}',
        _event(_record("a", versionId=["x"])),
    ],
)
def test_what_is_no_notification_is_refused_and_never_a_fault_of_ours(caller: Caller, body: bytes) -> None:
    answer = caller.post(body)
    assert (answer.status_code, answer.text) == (400, "not a notification\n")
    assert caller.rows() == []
    assert caller.rung == []


@pytest.mark.parametrize("body", [b"", b"  \n", b"{}", b'{"Records": null}', b'{"Records": []}'])
def test_a_stores_probe_is_answered(caller: Caller, body: bytes) -> None:
    answer = caller.post(body)
    assert (answer.status_code, answer.text) == (200, "nothing to do\n")


@pytest.mark.parametrize(
    "record",
    [
        _record("a", event="s3:ObjectCreated:PutTagging"),
        _record("a", event="s3:ObjectCreated:PutRetention"),
        _record("a", event="s3:ObjectRemoved:Delete"),
        _record("a", event="s3:ObjectAccessed:Get"),
        _record("a", bucket="derived"),
    ],
)
def test_events_that_bring_no_study_file_are_ignored(caller: Caller, record: Any) -> None:
    assert caller.post(_event(record)).status_code == 200
    assert caller.rows() == []


@pytest.mark.parametrize("how", ["Put", "Post", "Copy", "CompleteMultipartUpload"])
def test_every_way_to_create_an_object_counts(how: str) -> None:
    notification = {"Records": [_record("a", event=f"s3:ObjectCreated:{how}", eTag='"x-2"')]}
    assert [one.version for one in objects_of(notification, "studies")] == ["x-2"]


def test_a_database_that_is_away_makes_the_store_keep_the_event(site: Settings, caller: Caller) -> None:
    from pydantic import SecretStr

    away = site.model_copy(
        update={
            "database": site.database.model_copy(
                update={"url": SecretStr("postgresql+psycopg2://x:y@127.0.0.1:1/none")}
            )
        }
    )
    with TestClient(make_receiver(away, caller.rung.append)) as client:
        answer = client.post(
            "/events", content=_event(_record("a")), headers={"Authorization": f"Bearer {caller.token}"}
        )
        assert (answer.status_code, answer.text) == (503, "try again\n")
        assert client.get("/health").status_code == 503
    assert caller.rung == []


def test_health_says_whether_the_database_answers(caller: Caller) -> None:
    assert caller.client.get("/health").text == "ok\n"


def test_only_the_webhooks_method_and_path_exist(caller: Caller) -> None:
    assert caller.client.get("/events").status_code == 405
    assert caller.client.post("/").status_code == 404
