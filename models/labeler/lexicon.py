"""The words by which a report mentions each pathology, as regular expressions.

Our own list, written from the field's vocabulary and the category definitions of the CheXpert labeler
(Irvin et al. 2019): a category's words decide *what* is mentioned, never whether it is asserted.
Expressions are tried on lower-case text, each at the start of a word.
"""

from __future__ import annotations

import re
from functools import lru_cache

from models.pathologies import Pathology

_P = Pathology

FINDINGS: dict[Pathology, tuple[str, ...]] = {
    _P.CARDIOMEGALY: (
        r"cardiomegal\w*",
        r"cardiac enlargement",
        r"enlargement of the (?:heart|cardiac (?:silhouette|shadow))",
        r"heart enlargement",
    ),
    _P.ENLARGED_CARDIOMEDIASTINUM: (
        r"(?:superior )?mediastinal (?:widening|enlargement|prominence|fullness)",
        r"widening of the (?:superior )?mediastinum",
        r"widened (?:superior )?mediastinum",
        r"cardiomediastinal (?:widening|enlargement)",
        r"enlarged cardiomediastin\w+",
    ),
    _P.LUNG_LESION: (
        r"mass(?:es)?\b(?! effect)",
        r"nodules?\b",
        r"nodular (?:\w+ )?(?:densit\w+|opaci\w+|lesions?|focus|foci|shadow\w*)",
        r"(?:cavitary|cavitating|spiculated|lytic lung) lesions?",
        r"lung lesions?",
        r"pulmonary lesions?",
        r"lump\b",
        r"carcinomas?\b",
        r"neoplas\w+",
        r"tumou?rs?\b",
        r"malignan\w+",
        r"metasta\w+",
        r"coin lesions?",
    ),
    _P.LUNG_OPACITY: (
        r"opaci\w+",
        r"airspace (?:disease|process|change|abnormalit)\w*",
        r"air[- ]space (?:disease|process|change|abnormalit)\w*",
        r"alveolar (?:disease|process|infiltrat\w+)",
        r"infiltrat\w+",
        r"increased (?:lung |pulmonary |parenchymal )?densit\w+",
        r"(?:patchy|hazy|ill[- ]defined|focal|streaky|linear|basilar|bibasilar) (?:\w+ )?densit(?:y|ies)",
        r"interstitial (?:\w+ )?(?:marking|pattern|lung|thickening|change|prominence|disease|process)\w*",
        r"reticul\w+ (?:pattern|marking|change|densit)\w*",
        r"reticulation",
        r"ground[- ]glass",
        r"parenchymal scar\w*",
        r"(?:peri)?bronchial (?:wall )?thickening",
        r"scar(?:s|ring)?\b",
        r"shadowing",
    ),
    _P.EDEMA: (
        r"o?edema\w*",
        r"(?:heart|cardiac|congestive|ventricular) failure",
        r"chf\b",
        r"kerley b? ?lines?",
    ),
    _P.CONSOLIDATION: (r"consol[io]dat\w+",),
    _P.PNEUMONIA: (
        r"p(?:neu|nue|nu)moni(?:a|as|tis|c)\b",
        r"broncho-?pneumonia\w*",
        r"(?:lung|pulmonary|lower respiratory|respiratory tract|chest) (?:tract )?infections?\b",
    ),
    _P.ATELECTASIS: (
        r"atelect[ae]\w*",
        r"(?:lobar|lobe|lung|segmental|subsegmental|basal|basilar|complete|partial|volume) collapse\b",
        r"collapse\b(?! of (?:the )?(?:[tl]\d|\w+ vertebra|vertebra))",
        r"collapsed? (?:of the )?(?:\w+ ){0,3}(?:lung|lobe|segment|lingula)\b",
    ),
    _P.PNEUMOTHORAX: (
        r"(?:hydro)?pneumothora(?:x|ces|xes|cies)\b", r"pneumothorac\w+", r"pneumothorx\b",
        r"p(?:nue|nu)mothora(?:x|ces)\b",
    ),
    _P.PLEURAL_EFFUSION: (
        r"(?:pleural |para|sub)?eff?uss?ions?\b",
        r"pleural fluid",
        r"pleural (?:\w+ )?collections?",
        r"(?:hemo|haemo|hydro|chylo)thora\w+",
        r"hydropneumothora\w+",
        r"fluid in the (?:\w+ ){0,2}(?:fissure|pleural space|costophrenic \w+)s?",
        r"empyema",
    ),
    _P.PLEURAL_OTHER: (
        r"pleural (?:based )?(?:\w+ )?(?:thickening|scar\w*|plaques?|calcification\w*|disease|abnormalit\w+)",
        r"(?:apical|biapical|pleuro-?parenchymal|pleural-parenchymal) (?:\w+ )?(?:thickening|scar\w*|cap)",
        r"thickening of the (?:\w+ )?pleura",
        r"pleural[- ]parenchymal scar\w*",
        r"fibrothorax",
        r"pleural tags?",
    ),
    _P.FRACTURE: (r"fractur\w+", r"broken ribs?", r"rib fx\b", r"cortical (?:break|disruption|step-?off)\w*"),
    _P.SUPPORT_DEVICES: (
        r"pacer\b", r"pacemakers?\b", r"pace(?:r|maker)? (?:lead|wire)s?", r"pacing (?:lead|wire|device)s?",
        r"(?:central|venous|arterial|picc|ij|jugular|subclavian|femoral|infusion|hickman|dialysis|access|"
        r"port|midline|monitoring|support) (?:\w+ )?lines?\b",
        r"lines? (?:and|or) tubes?", r"tubes? (?:and|or) lines?", r"piccs?\b",
        r"(?:endotracheal|tracheostomy|nasogastric|orogastric|enteric|feeding|chest|ng|et|og|thoracostomy|"
        r"pleural|drainage|dobhoff|gastric|tracheal|gastrostomy|support)[ -](?:\w+ )?tubes?\b",
        r"tubes?\b", r"ett\b", r"ngt\b", r"tracheostomy", r"valves?\b", r"valvular prosthe\w+",
        r"catheters?\b", r"hardware", r"arthroplast\w*", r"prosthe\w+", r"icd\b", r"aicd\b", r"defib\w*",
        r"devices?\b", r"(?:chest|pleural|pigtail|surgical|mediastinal|pericardial) drains?\b", r"drains?\b",
        r"(?:fixation |metal |orthopedic )plates?\b", r"screws?\b", r"cannulas?\b", r"stents?\b",
        r"(?:embolization )?coils?\b", r"mediports?\b", r"port-?a-?caths?\b", r"portacaths?\b",
        r"(?:chest|infusion|venous|access|subcutaneous) ports?\b",
        r"(?:sternotomy|sternal|cerclage) wires?\b",
        r"median sternotomy", r"swan[- ]ganz", r"balloon pump", r"iabp\b", r"ventricular assist\w*",
        r"lvad\b",
        r"generators?\b", r"leads?\b(?! (?:to|apron|lordotic)\b)",
        r"(?:ventricular|atrial|electrode|ekg|ecg|monitor\w*|transvenous|epicardial) (?:\w+ )?leads?\b",
        r"surgical clips?\b",
        r"(?:spinal|posterior|anterior|orthopedic|harrington) (?:\w+ )?(?:rods?|fusion hardware)",
        r"(?:left|right)(?:[- ]sided)? (?:chest )?ports?\b",
        r"port\b(?= (?:in place|with|terminat|tip|is|catheter))",
        r"lines\b", r"shunt\b", r"stimulators?\b", r"sheath\b",
    ),
}  # fmt: skip

HEART = (
    r"heart size", r"size of the heart", r"cardiac size", r"heart shadow", r"cardiac shadows?",
    r"(?:cardiac|heart) (?:silhouettes?|contours?|outlines?)", r"cardiac xxxx",
    r"heart(?! (?:failure|enlargement|valve|rate|disease|block|transplant|attack|border))\b",
    r"cardiopericardial silhouettes?",
)  # fmt: skip
MEDIASTINUM = (
    r"cardio-?mediastin\w+(?: (?:silhouettes?|contours?|structures?|xxxx|size|shadows?|borders?))?",
    r"cardio mediastinal (?:silhouettes?|contours?)", r"(?:cardiac|heart) and (?:\w+ )?mediastinal \w+",
    r"mediastinal and cardiac \w+",
    r"mediastinum",
    r"mediastinal (?:and hilar )?(?:silhouettes?|contours?|outlines?|structures?|borders?|width|"
    r"configuration|xxxx|shadows?|size)", r"mediastinal(?= and (?:hilar|cardiac))",
    r"contours? of the mediastinum",
)  # fmt: skip
ORGANS: dict[Pathology, tuple[str, ...]] = {
    _P.CARDIOMEGALY: HEART,
    _P.ENLARGED_CARDIOMEDIASTINUM: MEDIASTINUM,
}

# Abnormal words outside the 14 categories: asserted, they forbid No Finding and do nothing else.
OTHER_ABNORMALITIES = (
    r"emphysem\w*", r"copd\b", r"chronic obstructive", r"hyper-?(?:inflat|expan|aerat|lucen)\w+",
    r"scolio\w+",
    r"dextroscolio\w+", r"levoscolio\w+", r"calcif\w+", r"hernia\w*", r"granulom\w+", r"degenerat\w+",
    r"spondyl\w+", r"osteophyt\w*", r"osteopeni\w+", r"osteopor\w+", r"kypho\w+", r"arthrit\w+", r"dish\b",
    r"tortuo\w+", r"atherosclero\w+", r"ectasi\w+", r"ectatic", r"aneurysm\w*", r"uncoil\w+", r"unfold\w+",
    r"elevat\w+ (?:of the )?(?:\w+ )?(?:hemi)?diaphragm\w*",
    r"(?:hemi)?diaphragm\w* (?:is|are) (?:\w+ )?elevated",
    r"eventration", r"flatten\w+", r"bronchiecta\w+", r"bronchitis", r"bronchitic", r"cyst\w*", r"bullae?\b",
    r"bullous", r"bleb\w*", r"cavit(?:y|ies|ation)", r"lucenc\w+", r"adenopathy", r"lymphadenopathy",
    r"pneumoperitoneum", r"free (?:intraperitoneal |subdiaphragmatic )?air", r"pneumomediastinum",
    r"fibro(?:sis|tic)\b",
    r"deformit\w+", r"compression", r"wedging", r"dislocat\w+", r"(?:mild|moderate|severe|acute) disease",
    r"hypertension", r"tubercul\w+", r"sarcoid\w*", r"low lung volumes?", r"hypoventilat\w+",
    r"hypoinflat\w+",
    r"hypoaerat\w+", r"aspiration", r"densit(?:y|ies)\b", r"thicken\w+", r"lesions?\b", r"hilar prominence",
    r"blunt\w*", r"congest\w+", r"indistinct\w*", r"cephali\w+",
    r"(?:vascular|vessel) (?:prominence|engorgement|"
    r"redistribution)", r"overload", r"infecti\w+",
    r"deviat\w+", r"mass effect", r"distortion", r"subcutaneous (?:air|gas|emphysema)", r"foreign bod\w+",
    r"air leak",
)  # fmt: skip

# Words that look like a mention and are none.
_NOT_MENTIONS = (
    r"plate[- ]?like", r"end ?-?plates?\b", r"pleural lines?", r"kerley b? ?lines?(?= are absent)",
    r"mid-?lines?\b",
    r"(?:septal|kerley\w*|pleural|fissur\w+|fracture|reticular|interstitial|skin|skinfold|linear|b) lines",
    r"mass effect", r"body mass",
    r"mediastinal (?:clips?|wires?|drains?|lymph\w*|aden\w*|shift|calcif\w*|granul\w*|nodes?|mass\w*|air|"
    r"surgical)",
    r"(?:soft tissue|subcutaneous|body wall|chest wall|leg|ankle|cerebral|bone marrow|peripheral|"
    r"skin) o?edema",
    r"infection control", r"interstitial emphysema", r"valsalva", r"shunt vascularity",
    r"(?:apical|lead) lordotic",
    r"vertebral (?:body )?collapse", r"lead apron", r"airway devices?(?= not)", r"eustachian tubes?",
    r"(?:air|fluid|pulmonary) (?:filled )?tubes?(?= sign)", r"pericardial effusions?", r"joint effusions?",
    r"tumor markers?",
    r"(?:aortic|mitral|tricuspid|valve|valvular) (?:valve )?(?:calcif\w+|stenosis|regurg\w+)",
    r"(?:calcified|calcification of the) (?:aortic|mitral) (?:valve|annul\w+)",
)  # fmt: skip


def _any_of(expressions: tuple[str, ...]) -> str:
    return "|".join(sorted(expressions, key=len, reverse=True))


_FINDING_BY_CATEGORY = {
    pathology: re.compile(rf"(?<![a-z0-9])(?:{_any_of(words)})") for pathology, words in FINDINGS.items()
}
_ALL_FINDINGS = tuple(word for words in FINDINGS.values() for word in words)

NOT_MENTION = re.compile(rf"(?<![a-z0-9])(?:{_any_of(_NOT_MENTIONS)})")
FINDING = re.compile(rf"(?<![a-z0-9])(?:{_any_of(_ALL_FINDINGS)})")
ORGAN = re.compile(rf"(?<![a-z0-9])(?:(?P<mediastinum>{_any_of(MEDIASTINUM)})|(?P<heart>{_any_of(HEART)}))")
OTHER_ABNORMALITY = re.compile(rf"(?<![a-z0-9])(?:{_any_of(OTHER_ABNORMALITIES)})")


@lru_cache(maxsize=4096)
def categories_of(phrase: str) -> tuple[Pathology, ...]:
    """Every pathology that a matched phrase mentions: "nodular opacity" is a lesion and an opacity."""
    return tuple(
        pathology for pathology, expression in _FINDING_BY_CATEGORY.items() if expression.search(phrase)
    )
