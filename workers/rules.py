"""Rules that settings, stages and jobs share; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GateRules:
    """On what a release is compared with the active one before it is promoted."""

    dataset: str = "phantom:2000003:2000"
    """Its held-out studies (split ``test``) are read, exemplars come from its training split."""
    studies: int = 200
    """At most so many are read and as many exemplars encoded."""
    drafts: int = 48
    """So many of them get a draft: drafts are what takes time."""
