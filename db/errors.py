"""What can go wrong with the stores, by name. Messages carry our own ids, never a value of a row."""

from __future__ import annotations


class StoreError(Exception):
    """Base of every error of the database and the object store."""


class DatabaseUnavailable(StoreError):
    """Postgres did not answer. Work waits and is tried again; see `nightread status`."""


class ObjectStoreUnavailable(StoreError):
    """The object store did not answer. Work waits and is tried again; see `nightread status`."""


class ObjectGone(StoreError):
    """The object was deleted or overwritten before it was read; what replaced it is an object of its own."""


class ObjectTooLarge(StoreError):
    """The object is larger than the site allows (`NIGHTREAD_INTAKE__MAX_OBJECT_BYTES`)."""


class StudyNotFound(StoreError):
    """No study has this Study Instance UID; `nightread worklist` lists the known ones."""


class ReleaseNotFound(StoreError):
    """No release has this name or digest; `nightread release list` shows the known ones."""


class NoActiveRelease(StoreError):
    """Nothing can be read without a release; run `nightread release add`, or promote one."""


class IndexVersionNotUsable(StoreError):
    """An index version cannot be activated, verified or dropped; the message says why and what to do."""


class NothingToRollBack(StoreError):
    """No switch is left that could be undone; `nightread release list` shows what is active."""


class JobNotFound(StoreError):
    """No job has this number; `nightread job list` shows the known ones."""


class JobNotResumable(StoreError):
    """Only a failed or cancelled job can be resumed, and not while its schedule has another unfinished."""
