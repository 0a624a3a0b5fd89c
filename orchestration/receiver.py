"""The receiver: the object store's webhook. Insert, commit, answer; then ring.

``POST /events`` with ``Authorization: Bearer TOKEN`` and a MinIO event as body; ``GET /health``.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote_plus

import structlog
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from db import intake
from db.engine import make_engine, transaction
from db.errors import DatabaseUnavailable
from db.objects import StoredObject
from orchestration import pipeline
from orchestration.settings import Settings

log = structlog.get_logger()

# Not s3:ObjectCreated:* as a whole: that includes tagging and retention, which change no byte.
_CREATIONS = {f"s3:ObjectCreated:{how}" for how in ("Put", "Post", "Copy", "CompleteMultipartUpload")}


_LONGEST_KEY_BYTES = 1024
"""S3's limit of a key; a version is far shorter."""


class BodyTooLarge(Exception):
    """A notification longer than the limit; nothing that a store sends is."""


def objects_of(notification: Any, bucket: str) -> list[StoredObject]:
    """The created objects that a notification names.

    Keys come URL-encoded to webhooks (and only there): ``a+b%25.dcm`` is ``a b%.dcm``.

    Raises:
        ValueError: If it is no notification.
    """
    records = notification.get("Records") or [] if isinstance(notification, dict) else None
    if not isinstance(records, list):
        raise ValueError("not a notification")
    found = []
    for record in records:
        try:
            if record["eventName"] not in _CREATIONS or record["s3"]["bucket"]["name"] != bucket:
                continue
            described = record["s3"]["object"]
            named = StoredObject(
                bucket=bucket,
                key=unquote_plus(described["key"]),
                version=str(described.get("eTag", "")).strip('"'),
                version_id=described.get("versionId") or None,
                size_bytes=int(described.get("size", 0)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("a record lacks a field") from error
        if not _can_be_stored(named):
            raise ValueError("a record names what no store can hold")
        found.append(named)
    return found


def _can_be_stored(named: StoredObject) -> bool:
    """Whether Postgres takes it: no NUL, no half of a surrogate pair, a key and sizes of S3.

    An error in the insert would be answered 500, and the store would send the event again for ever.
    """
    try:
        texts = [named.key, named.version, named.version_id or ""]
        sizes = [len(text.encode()) for text in texts]
    except (UnicodeEncodeError, AttributeError):
        return False
    return (
        0 < sizes[0] <= _LONGEST_KEY_BYTES
        and max(sizes) <= _LONGEST_KEY_BYTES
        and not any("\x00" in text for text in texts)
        and 0 <= named.size_bytes < 2**63
    )


def make_receiver(site: Settings, ring: Any) -> Starlette:
    """The web application of these settings."""
    assert site.database.url is not None
    if site.intake.token is None:
        raise ValueError("the receiver needs NIGHTREAD_INTAKE__TOKEN")
    token = f"Bearer {site.intake.token.get_secret_value()}".encode()
    bucket = site.objects.studies_bucket
    engine = make_engine(
        site.database.url.get_secret_value(), pool_size=8, application="nightread-receiver", hurried=True
    )

    def announce(objects: list[StoredObject]) -> int:
        with transaction(engine) as session:
            return intake.announce(
                session,
                objects,
                stage=pipeline.FIRST_OBJECT_STAGE,
                source="event",
                stat_prefixes=site.intake.stat_prefixes,
            )

    async def receive(request: Request) -> Response:
        shown = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(shown, token):
            log.warning("event_refused", reason="token")
            return PlainTextResponse("the token is wrong\n", status_code=403)
        try:
            body = await _bounded_body(request, site.intake.max_body_bytes)
            objects = objects_of(json.loads(body), bucket) if body.strip() else []
        except BodyTooLarge:
            log.warning("event_refused", reason="too_large")
            return PlainTextResponse("the body is too large\n", status_code=413)
        except (ValueError, RecursionError):
            log.warning("event_refused", reason="malformed")
            return PlainTextResponse("not a notification\n", status_code=400)
        if not objects:
            return PlainTextResponse("nothing to do\n")
        try:
            new = await run_in_threadpool(announce, objects)
        except DatabaseUnavailable:
            # The store keeps the event in its queue folder and sends it again.
            return PlainTextResponse("try again\n", status_code=503)
        log.info("event_received", objects=len(objects), new=new)
        return PlainTextResponse("announced\n", background=BackgroundTask(ring, pipeline.FIRST_OBJECT_STAGE))

    def health(_request: Request) -> Response:
        try:
            with transaction(engine) as session:
                session.execute(text("SELECT 1"))
        except DatabaseUnavailable:
            return PlainTextResponse("the database does not answer\n", status_code=503)
        return PlainTextResponse("ok\n")

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        engine.dispose()

    return Starlette(
        routes=[
            Route("/events", receive, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ],
        lifespan=lifespan,
    )


async def _bounded_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge
    return bytes(body)


def main() -> None:
    """Serve until told to stop."""
    import uvicorn

    from orchestration import logging as site_logging
    from orchestration.app import ring, settings
    from orchestration.embedded.ready import announce_ready

    site_logging.configure("receiver")
    site = settings()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[Any] | None = None) -> None:
            await super().startup(sockets)
            announce_ready()

    # The access log would hold nothing but our own path; it is off to keep the log short.
    config = uvicorn.Config(
        make_receiver(site, ring),
        host=site.intake.host,
        port=site.intake.port or 8700,
        access_log=False,
        log_config=None,
    )
    Server(config).run()


if __name__ == "__main__":
    main()
