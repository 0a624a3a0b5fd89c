"""Telling patients and studies apart without keeping who they are."""

from __future__ import annotations

import hashlib
import hmac
import re

# What sites write where there is no Patient ID. Such a study is its own patient.
_PLACEHOLDER = re.compile(
    r"^(0*|x+|-+|\.+|\?+|n/?a|none|null|nil|unknown|unk|no ?id|not supplied|test"
    r"|anon(ymous|ymized|ymised)?)$",
    re.IGNORECASE,
)


def patient_hash(key: bytes, issuer: str | None, patient_id: str | None) -> bytes | None:
    """Keyed hash of (0010,0021) *Issuer of Patient ID* and (0010,0020) *Patient ID*.

    Returns:
        32 bytes, the same for every study of the patient; ``None`` where the id is missing or a
        place-holder, which would otherwise make strangers one patient.
    """
    wanted = (patient_id or "").strip()
    if _PLACEHOLDER.match(wanted):
        return None
    message = "\x1f".join(("patient", (issuer or "").strip(), wanted))
    return hmac.new(key, message.encode(), hashlib.sha256).digest()


def study_hash(key: bytes, study_instance_uid: str) -> bytes:
    """Keyed hash of (0020,000D) *Study Instance UID*: 32 bytes."""
    return hmac.new(key, f"study\x1f{study_instance_uid.strip()}".encode(), hashlib.sha256).digest()
