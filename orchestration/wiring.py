"""From settings to what the stages use: engine, object store, site rules, context."""

from __future__ import annotations

import functools
import os

from db.engine import make_engine
from db.objects import ObjectStore
from db.studies import QuietPeriods
from models.pathologies import PATHOLOGIES, Pathology
from orchestration.cache import keep_kernels
from orchestration.settings import Settings, SettingsError, load
from workers.context import Context, GateRules, SiteRules

_NO_DISEASE = (Pathology.NO_FINDING, Pathology.SUPPORT_DEVICES)
"""They raise no acuity unless the site gives them a weight."""


def site_rules(site: Settings) -> SiteRules:
    """The settings that stages need.

    Raises:
        SettingsError: If the key of the patient hash is missing.
    """
    if site.patients.hash_key is None:
        raise SettingsError(
            "Patients cannot be told apart: set NIGHTREAD_PATIENTS__HASH_KEY, and never change it."
        )
    weights = {p.value: 0.0 if p in _NO_DISEASE else 1.0 for p in PATHOLOGIES}
    return SiteRules(
        quiet=QuietPeriods(stat_s=site.intake.stat_quiet_s, routine_s=site.intake.quiet_s),
        manifest_name=site.intake.manifest_name,
        max_object_bytes=site.intake.max_object_bytes,
        minimum_age_years=site.eligibility.minimum_age,
        acuity_weights=weights | {p.value: float(w) for p, w in site.worklist.weights.items()},
        patient_key=site.patients.hash_key.get_secret_value().encode(),
        device=site.model.device,
        gate=GateRules(dataset=site.gate.dataset, studies=site.gate.studies, drafts=site.gate.drafts),
    )


def make_context(site: Settings) -> Context:
    """Everything a stage needs, from these settings; rings the real bell.

    The process's networks find their compiled kernels from now on, too.
    """
    from orchestration.app import ring

    keep_kernels()
    assert site.database.url is not None
    return Context(
        engine=make_engine(site.database.url.get_secret_value(), application=f"nightread-{os.getpid()}"),
        store=ObjectStore(site.objects),
        rules=site_rules(site),
        home=site.home,
        ring=ring,
    )


@functools.cache
def context() -> Context:
    """The context of this process."""
    return make_context(load())


def close_context() -> None:
    """Let go of what this process's context holds, if it made one."""
    if context.cache_info().currsize:
        context().close()
        context().engine.dispose()
        context.cache_clear()
