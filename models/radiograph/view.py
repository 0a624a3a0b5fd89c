"""Which view an image is and whether it shows a chest, from the header alone.

Order of evidence: View Position (0018,5101), then View Code Sequence (0054,0220, CID 4010), then the
procedure code's meaning, Series Description and Protocol Name, else abstain. Descriptions are only
matched against words; none of them is kept.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum

from models.radiograph.dataset import DataSet


class View(StrEnum):
    """A projection, as far as the choice of the image to read needs it."""

    PA = "pa"
    AP = "ap"
    FRONTAL = "frontal"
    """Frontal, direction of the beam not told."""
    LATERAL = "lateral"
    OTHER = "other"
    """Oblique, decubitus, lordotic and the like."""
    UNKNOWN = "unknown"

    @property
    def is_frontal(self) -> bool:
        """Whether it is one of the three that are read."""
        return self in (View.PA, View.AP, View.FRONTAL)


def terms(text: str) -> frozenset[str]:
    """A set of words, written as one text."""
    return frozenset(text.split())


VIEW_POSITION, VIEW_CODES, PATIENT_ORIENTATION = 0x00185101, 0x00540220, 0x00200020
_VIEW_MODIFIERS = 0x00540222
BODY_PART, ANATOMIC_REGION = 0x00180015, 0x00082218
_PROCEDURE_CODES = (0x00081032, 0x00321064)
_SERIES_TEXTS = (0x0008103E, 0x00181030, 0x00181400)
_STUDY_TEXTS = (0x00400254, 0x00321060, 0x00081030)
_CODE_VALUE, _CODE_MEANING = 0x00080100, 0x00080104

# CID 4010 "DX View": SNOMED CT concept identifiers and the SRT codes that they replaced.
_CODES: dict[str, View] = {
    **dict.fromkeys(("399348003", "R-10206"), View.AP),
    **dict.fromkeys(("272479007", "R-10214", "R-40888"), View.PA),
    **dict.fromkeys(("399033003", "R-10202"), View.FRONTAL),
    **dict.fromkeys(("399067008", "R-102CD", "399173006", "R-10236", "399198007", "R-10232"), View.LATERAL),
    **dict.fromkeys(
        # obliques, axial, tangential
        terms(
            "399312000 R-10208 399061009 R-10241 399160007 R-10204 399132005 R-10252 260427002 R-40783 "
            "399135007 R-10220 399184004 R-10238 399006002 R-10212 399004004 R-10246 399182000 R-102C1 "
            "399059000 R-10216 399356000 R-40985 399236003 R-10234 399038007 R-10210 399110001 R-102C2"
        ),
        View.OTHER,
    ),
}

_PA = frozenset({"PA", "POSTEROANTERIOR"})
_AP = frozenset({"AP", "ANTEROPOSTERIOR"})
_FRONTAL = frozenset({"FRONTAL", "FACE"})
_LATERAL = frozenset(
    {"LAT", "LATERAL", "LATERALE", "LL", "RL", "LLAT", "RLAT", "PROFIL", "PROFILE", "SEITLICH"}
)
_SPECIAL = terms(
    "OBLIQUE OBL DECUBITUS DECUB LLD RLD LORDOTIC AXIAL APICAL LAO RAO LPO RPO LLO RLO "
    "TANGENTIAL SUPEROINFERIOR"
)
_POSTURES = terms("DECUBITUS DECUB LLD RLD LORDOTIC")

_CHEST = terms(
    "CHEST THORAX CXR LUNG LUNGS TORAX TORACE TORAKS POITRINE POUMON POUMONS LUNGE THORACIQUE BRUSTKORB"
)
_ELSEWHERE = terms(
    "ABDOMEN ABD PELVIS SPINE CSPINE TSPINE LSPINE SSPINE RIB RIBS STERNUM CLAVICLE SHOULDER "
    "HUMERUS HAND WRIST ELBOW FOREARM HIP FEMUR KNEE ANKLE FOOT EXTREMITY SKULL HEAD NECK JAW "
    "BREAST TIBIA FINGER TOE SCAPULA HEEL LEG ARM COCCYX SACRUM"
)
_NOWHERE = frozenset({"", "UNKNOWN", "UNDEFINED", "NONE", "OTHER", "UNSPECIFIED", "XXXX"})
# SNOMED CT and SRT codes for thorax, chest, lung (CID 4009, 4031).
_CHEST_CODES = frozenset({"51185008", "43799004", "816094009", "39607008", "T-D3000", "T-28000"})

_POINTS = re.compile(r"(?<![A-Z])([AP])(?:\. ?|[-/])([AP])(?![A-Z])\.?")
_JOINED = re.compile(r"\b(POSTERO|ANTERO|SUPERO)[ _-](ANTERIOR|POSTERIOR|INFERIOR)\b")


def words(text: str) -> frozenset[str]:
    """Split a description into upper-case words without accents; ``p.a.`` becomes ``PA``."""
    plain = unicodedata.normalize("NFKD", text.upper()).encode("ascii", "ignore").decode("ascii")
    plain = _JOINED.sub(r"\1\2", _POINTS.sub(r"\1\2", plain))
    return frozenset(re.findall(r"[A-Z]+", plain))


def view_of_text(text: str) -> View:
    """The one view that a description names, ``UNKNOWN`` if it names none or contradicts itself."""
    found = words(text)
    if found & _SPECIAL:
        return View.OTHER
    pa, ap = bool(found & _PA), bool(found & _AP)
    frontal, lateral = pa or ap or bool(found & _FRONTAL), bool(found & _LATERAL)
    if frontal == lateral:
        return View.UNKNOWN
    if lateral:
        return View.LATERAL
    return View.FRONTAL if pa == ap else View.PA if pa else View.AP


def _view_of_codes(dataset: DataSet) -> View:
    for item in dataset.items(VIEW_CODES):
        modifiers = [view_of_text(each.text(_CODE_MEANING) or "") for each in item.items(_VIEW_MODIFIERS)]
        if View.OTHER in modifiers:  # an antero-posterior view, lordotic
            return View.OTHER
        coded = _CODES.get(item.text(_CODE_VALUE) or "", View.UNKNOWN)
        if coded is not View.UNKNOWN:
            return coded
        named = view_of_text(item.text(_CODE_MEANING) or "")
        if named is not View.UNKNOWN:
            return named
    return View.UNKNOWN


def _descriptions(dataset: DataSet, tags: tuple[int, ...], codes: tuple[int, ...]) -> list[str]:
    meanings = [item.text(_CODE_MEANING) or "" for tag in codes for item in dataset.items(tag)]
    return meanings + [" ".join(dataset.texts(tag)) for tag in tags]


def find_view(dataset: DataSet) -> tuple[View, list[str]]:
    """The view and the notes about how it was found."""
    stated = view_of_text(dataset.text(VIEW_POSITION) or "")
    coded = _view_of_codes(dataset)
    texts = _descriptions(dataset, _SERIES_TEXTS, _PROCEDURE_CODES[:1])
    described = {view_of_text(text) for text in texts} - {View.UNKNOWN}
    view, notes = _weigh(stated, coded, described)
    if view.is_frontal and any(words(text) & _POSTURES for text in texts):
        # The position of the beam does not tell these; a description that does says more, and nothing else.
        return View.OTHER, [*notes, "view_from_text"]
    if view.is_frontal and (dataset.text(PATIENT_ORIENTATION) or "")[:1].upper() in ("A", "P"):
        # PS3.3 C.7.6.1.1.1: rows of a frontal view run to the left or right, those of a lateral one to the
        # front or back.
        return View.UNKNOWN, ["view_contradiction"]
    return view, notes


def _weigh(stated: View, coded: View, described: set[View]) -> tuple[View, list[str]]:
    """What View Position, the codes and the descriptions say together."""
    if stated is not View.UNKNOWN:
        # A code that says lateral where the position says frontal, or the reverse: nobody can tell
        # which one was left at its default, so neither is believed.
        if stated.is_frontal and coded is View.OTHER:
            return coded, ["view_from_code"]  # an oblique or lordotic view has a position too
        if coded is not View.UNKNOWN and coded.is_frontal != stated.is_frontal:
            return View.UNKNOWN, ["view_contradiction"]
        differs = any(view.is_frontal != stated.is_frontal for view in described)
        return stated, ["view_text_differs"] if differs else []
    if coded is not View.UNKNOWN:
        return coded, ["view_from_code"]
    if not described:
        return View.UNKNOWN, []
    if len({view.is_frontal for view in described}) > 1:
        return View.UNKNOWN, ["view_contradiction"]
    if len(described) == 1:
        return described.pop(), ["view_from_text"]
    is_frontal = all(view.is_frontal for view in described)
    precise = described - {View.FRONTAL}
    view = precise.pop() if len(precise) == 1 else View.FRONTAL
    return (view if is_frontal else View.OTHER), ["view_from_text"]


def find_body_part(dataset: DataSet) -> tuple[str | None, list[str]]:
    """``CHEST``, ``OTHER`` or ``None`` if nothing tells, and the notes about how it was found."""
    stated = (dataset.text(BODY_PART) or "").upper()
    if stated not in _NOWHERE:
        found = words(stated)
        return ("CHEST" if found & _CHEST and not found & _ELSEWHERE else "OTHER"), []
    regions = [item.text(_CODE_VALUE) or "" for item in dataset.items(ANATOMIC_REGION)]
    if regions and regions[0]:
        return ("CHEST" if regions[0] in _CHEST_CODES else "OTHER"), ["body_part_from_text"]
    for text in _descriptions(dataset, _SERIES_TEXTS + _STUDY_TEXTS, _PROCEDURE_CODES):
        found = words(text)
        if found & _CHEST and not found & _ELSEWHERE:
            return "CHEST", ["body_part_from_text"]
        if found & _ELSEWHERE and not found & _CHEST:
            return "OTHER", ["body_part_from_text"]
    return None, []
