"""The object store, behind the few calls that every S3 store answers.

Three buckets: ``studies`` (what arrives; read only), ``derived`` (images, previews, tokens: content
addressed, so a late worker overwrites nothing) and ``releases`` (parts of releases by their SHA-256).
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError

from db.config import ObjectStoreSettings
from db.errors import ObjectGone, ObjectStoreUnavailable, ObjectTooLarge

_GONE = {"NoSuchKey", "NoSuchVersion", "NoSuchObject", "PreconditionFailed", "MethodNotAllowed"}
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One line of a listing or one event: what identifies an object."""

    bucket: str
    key: str
    version: str
    """ETag without quotes."""
    version_id: str | None
    size_bytes: int


class ObjectStore:
    """Thin adapter over minio-py with our errors and time-outs."""

    def __init__(self, settings: ObjectStoreSettings) -> None:
        assert settings.endpoint is not None
        self.settings = settings
        self._client = Minio(
            settings.endpoint,
            access_key=settings.access_key.get_secret_value() if settings.access_key else None,
            secret_key=settings.secret_key.get_secret_value() if settings.secret_key else None,
            secure=settings.secure,
            region=settings.region,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=5, read=60),
                maxsize=8,
                retries=urllib3.Retry(total=1, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
            ),
        )

    def list_studies(self) -> Iterator[StoredObject]:
        """Every object of the bucket ``studies``, in pages of 1,000.

        Raises:
            ObjectStoreUnavailable: If the store stops answering, also in the middle.
        """
        bucket = self.settings.studies_bucket
        with _translated():
            for found in self._client.list_objects(bucket, recursive=True):
                if found.is_dir or found.object_name is None:
                    continue
                yield StoredObject(
                    bucket=bucket,
                    key=found.object_name,
                    version=(found.etag or "").strip('"'),
                    version_id=None,
                    size_bytes=found.size or 0,
                )

    def download(self, stored: StoredObject, target: Path, *, limit_bytes: int) -> bytes:
        """Fetch exactly this version into a file; returns the SHA-256 of its bytes.

        Raises:
            ObjectGone: If it was deleted or overwritten and no version of it is kept.
            ObjectTooLarge: If it has more than ``limit_bytes``; nothing is left behind.
            ObjectStoreUnavailable: If the store does not answer.
        """
        digest = hashlib.sha256()
        with _translated():
            # The newest version is asked for first: what its sender deleted is not read, versions or not.
            response = self._client.get_object(stored.bucket, stored.key)
            try:
                etag = response.headers.get("ETag", "").strip('"')
                if stored.version and etag and etag != stored.version:
                    version_id = stored.version_id or self._find_version(stored)
                    if version_id is None:
                        raise ObjectGone("the key holds another version now")
                    response.close()
                    response.release_conn()
                    response = self._client.get_object(stored.bucket, stored.key, version_id=version_id)
                if int(response.headers.get("Content-Length", 0)) > limit_bytes:
                    raise ObjectTooLarge("the object is larger than the limit")
                received = 0
                with target.open("wb") as file:
                    for chunk in response.stream(_CHUNK_BYTES):
                        received += len(chunk)
                        if received > limit_bytes:
                            raise ObjectTooLarge("the object is larger than the limit")
                        digest.update(chunk)
                        file.write(chunk)
            finally:
                response.close()
                response.release_conn()
        return digest.digest()

    def _find_version(self, stored: StoredObject) -> str | None:
        """Id of the kept version of a key that has this ETag; ``None`` where the store keeps none."""
        try:
            found = self._client.list_objects(stored.bucket, prefix=stored.key, include_version=True)
            for one in found:
                if one.object_name == stored.key and (one.etag or "").strip('"') == stored.version:
                    return str(one.version_id)
        except (S3Error, ValueError):  # a store without versions
            return None
        return None

    def put_derived(self, folder: str, content: bytes, suffix: str) -> str:
        """Store bytes under their own digest in ``derived``; returns the key.

        Raises:
            ObjectStoreUnavailable: If the store does not answer.
        """
        key = f"{folder}/{hashlib.sha256(content).hexdigest()}{suffix}"
        with _translated():
            self._client.put_object(self.settings.derived_bucket, key, io.BytesIO(content), len(content))
        return key

    def get_derived(self, key: str) -> bytes:
        """Read a derived object.

        Raises:
            ObjectGone: If it is not there.
            ObjectStoreUnavailable: If the store does not answer.
        """
        with _translated():
            response = self._client.get_object(self.settings.derived_bucket, key)
            try:
                content: bytes = response.data
                return content
            finally:
                response.close()
                response.release_conn()

    def put_study_file(self, key: str, path: Path) -> StoredObject:
        """Put a file into ``studies`` as any S3 client would (used by ``nightread study submit``).

        Raises:
            ObjectStoreUnavailable: If the store does not answer.
        """
        with _translated():
            result = self._client.fput_object(self.settings.studies_bucket, key, str(path))
        return StoredObject(
            bucket=self.settings.studies_bucket,
            key=key,
            version=(result.etag or "").strip('"'),
            version_id=result.version_id,
            size_bytes=path.stat().st_size,
        )

    def put_part(self, sha256: str, path: Path) -> None:
        """Store one file of a release under its digest; one that is there already is left alone.

        Raises:
            ObjectStoreUnavailable: If the store does not answer.
        """
        bucket = self.settings.releases_bucket
        with _translated():
            try:
                if self._client.stat_object(bucket, _part_key(sha256)).size == path.stat().st_size:
                    return
            except S3Error as error:
                if error.code not in _GONE:
                    raise
            self._client.fput_object(bucket, _part_key(sha256), str(path))

    def fetch_part(self, sha256: str, cache: Path) -> Path:
        """The local copy of one file of a release, downloaded and checked once.

        Raises:
            ObjectGone: If the store does not hold it.
            ObjectStoreUnavailable: If the store does not answer, or its bytes do not match the digest.
        """
        target = cache / sha256
        if target.exists():
            return target
        cache.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=cache, prefix=".part-")
        os.close(handle)
        partial = Path(name)
        try:
            with _translated():
                response = self._client.get_object(self.settings.releases_bucket, _part_key(sha256))
                digest = hashlib.sha256()
                try:
                    with partial.open("wb") as file:
                        for chunk in response.stream(_CHUNK_BYTES):
                            digest.update(chunk)
                            file.write(chunk)
                finally:
                    response.close()
                    response.release_conn()
            if digest.hexdigest() != sha256:
                raise ObjectStoreUnavailable("a part of the release arrived damaged")
            partial.replace(target)  # atomic: two workers may fetch the same part
        finally:
            partial.unlink(missing_ok=True)
        return target


def _part_key(sha256: str) -> str:
    return f"parts/{sha256[:2]}/{sha256}"


@contextmanager
def _translated() -> Iterator[None]:
    """Give the driver's errors our names; their texts hold keys and stay out of ours."""
    try:
        yield
    except S3Error as error:
        if error.code in _GONE:
            raise ObjectGone("the object is not there any more") from None
        raise ObjectStoreUnavailable(f"the object store answered {error.code}") from None
    except (InvalidResponseError, ServerError, urllib3.exceptions.HTTPError, OSError) as error:
        raise ObjectStoreUnavailable(f"the object store did not answer: {type(error).__name__}") from None
