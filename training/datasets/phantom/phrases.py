# ruff: noqa: E501 - a sentence with its alternatives reads best on one line
"""The sentences of phantom reports: what a radiologist writes about each finding, present or absent.

``(a|b|c)`` chooses one alternative, ``{slot}`` is filled from the case. Sentences about a finding are
written only when it was drawn, sentences that deny it only when it was not (``report.py`` sees to both).

Hedged sentences ("may represent") are written about findings that were drawn: in phantom reports
uncertainty is that of the reader, never of the truth, so a label policy that counts uncertain as positive
agrees with the drawing.
"""

from __future__ import annotations

from models.pathologies import Pathology

P = Pathology

_LIKE = "(consistent with|compatible with|in keeping with)"
_MAYBE = "(may represent|may reflect|could represent|possibly representing)"
_WORRY = "(may represent|could reflect|is concerning for|is suspicious for)"

# (pathology, form): sentences of a certain reader. The first list mentions an opacity, the second need
# not. Both are about something drawn.
OPACITY: dict[tuple[Pathology, str], tuple[str, ...]] = {
    (P.LUNG_OPACITY, "hazy"): (
        "There is (a|an ill-defined|a nonspecific) {sev} hazy opacity in the {place}.",
        "Hazy opacity (is seen|is noted|is present) in the {place}.",
        "{Sev} ground-glass opacity in the {place}.",
    ),
    (P.LUNG_LESION, "nodule"): (
        f"There is a {{size}} (rounded|well-circumscribed) opacity in the {{place}} {_LIKE} a pulmonary nodule.",
        "A {size} nodular opacity (is seen|is noted|projects) (over|in) the {place}.",
    ),
    (P.LUNG_LESION, "nodules"): (
        "Multiple (bilateral|scattered bilateral) nodular opacities (are seen|are present), the largest {size}.",
    ),
    (P.LUNG_LESION, "mass"): (
        f"A {{size}} (rounded|lobulated) opacity in the {{place}} {_LIKE} a (lung|pulmonary) mass.",
        "There is a {size} mass-like opacity in the {place}.",
    ),
    (P.EDEMA, "interstitial"): (
        f"(Bilateral|Diffuse) interstitial opacities with septal lines, {_LIKE} {{sev}} (pulmonary|interstitial) edema.",
        f"{{Sev}} (bibasilar|bilateral) interstitial opacities, {_LIKE} pulmonary edema.",
    ),
    (P.EDEMA, "alveolar"): (
        f"(Bilateral|Symmetric) perihilar opacities, {_LIKE} {{sev}} (pulmonary|alveolar) edema.",
        f"Diffuse perihilar airspace opacities {_LIKE} {{sev}} pulmonary edema.",
    ),
    (P.CONSOLIDATION, "dense"): (
        "Dense opacity with air bronchograms in the {place}, (consistent with|in keeping with) consolidation.",
        f"(Confluent|Dense) airspace opacity in the {{place}} {_LIKE} {{sev}} consolidation.",
    ),
    (P.PNEUMONIA, "patchy"): (
        f"(Patchy|Multifocal patchy|Ill-defined patchy) opacities in the {{place}}, {_LIKE} pneumonia.",
        f"{{Sev}} patchy airspace opacities in the {{place}} {_LIKE} pneumonia.",
    ),
    (P.ATELECTASIS, "bands"): (
        "(Linear|Bandlike) opacities at the {base}, (consistent with|compatible with) {sev} atelectasis.",
        "(Streaky|Linear) opacities at the {base} (are|are most) (consistent with|compatible with) atelectasis.",
    ),
    (P.ATELECTASIS, "lobar"): (
        f"Opacity with volume loss in the {{place}}, {_LIKE} {{sev}} atelectasis.",
        "{Place} opacity with volume loss, (consistent with|in keeping with) atelectasis.",
    ),
}

CERTAIN: dict[tuple[Pathology, str], tuple[str, ...]] = {
    (P.CARDIOMEGALY, "enlarged"): (
        "(The heart|Heart|The cardiac silhouette) is {sevly} enlarged.",
        "There is {sev} cardiomegaly.",
        "{Sev} cardiomegaly (is present|is noted|is seen).",
        "{Sev} enlargement of the cardiac silhouette.",
    ),
    (P.ENLARGED_CARDIOMEDIASTINUM, "widened"): (
        "The (superior mediastinum|upper mediastinum|mediastinum) is {sevly} widened.",
        "There is {sev} widening of the (mediastinum|superior mediastinum|upper mediastinum).",
        "{Sev} (widening|enlargement) of the mediastinal contour.",
        "Widened mediastinum.",
    ),
    (P.LUNG_LESION, "nodule"): (
        "There is a {size} (pulmonary nodule|nodule|well-circumscribed nodule) in the {place}.",
        "A {size} nodule (is seen|is noted|is present) in the {place}.",
    ),
    (P.LUNG_LESION, "nodules"): (
        "There are (multiple|several) bilateral pulmonary nodules, the largest measuring {size}.",
        "(Multiple|Several) (bilateral|scattered) nodules (are seen|are noted), measuring up to {size}.",
    ),
    (P.LUNG_LESION, "mass"): (
        "There is a {size} (mass|lung mass|rounded mass) in the {place}.",
        "A {size} (lobulated mass|mass) (is seen|is noted|is present) in the {place}.",
    ),
    (P.EDEMA, "interstitial"): (
        "There is {sev} (interstitial pulmonary edema|interstitial edema|pulmonary edema).",
        "{Sev} (interstitial edema|pulmonary edema) with (Kerley B lines|septal lines|peribronchial cuffing).",
    ),
    (P.EDEMA, "alveolar"): (
        "There is {sev} (pulmonary edema|alveolar edema).",
        "{Sev} pulmonary edema (with a perihilar distribution|in a perihilar distribution).",
    ),
    (P.CONSOLIDATION, "dense"): (
        "There is (dense|confluent|{sev}) consolidation in the {place}.",
        "{Place} consolidation (with air bronchograms|is present|is noted).",
    ),
    (P.PNEUMONIA, "patchy"): (
        "{Place} pneumonia.",
        "There is {sev} (pneumonia|bronchopneumonia|multifocal pneumonia) in the {place}.",
    ),
    (P.ATELECTASIS, "bands"): (
        "(Linear|Bandlike|Platelike|Discoid|Subsegmental) atelectasis (at|is seen at|is noted at) the {base}.",
        "There is {sev} (linear|bandlike|subsegmental) atelectasis at the {base}.",
    ),
    (P.ATELECTASIS, "lobar"): (
        "{Place} (atelectasis|collapse) with volume loss.",
        "There is {sev} atelectasis of the {place}.",
    ),
    (P.PNEUMOTHORAX, "apical"): (
        "There is a {extent} {side} (apical pneumothorax|pneumothorax).",
        "A {extent} {side} (apical pneumothorax|pneumothorax) is (seen|present|noted).",
        "A {side} apical pleural line (is seen|is visible), (consistent with|compatible with) a {extent} pneumothorax.",
    ),
    (P.PNEUMOTHORAX, "lateral"): (
        "There is a {extent} {side} pneumothorax.",
        "{Extent} {side} pneumothorax (is present|is seen|is noted).",
        "A {extent} pneumothorax (is present|is seen) on the {side}.",
    ),
    (P.PLEURAL_EFFUSION, "meniscus"): (
        "There (is a|are) {extent} {side} pleural effusion(s).",
        "{Extent} {side} pleural effusion(s) (is_are present|is_are seen|is_are noted).",
        "{Blunting} of the {angles}, (consistent with|in keeping with) {extent_an} {side} pleural effusion(s).",
    ),
    (P.PLEURAL_OTHER, "apical"): (
        "{Sev} {side} apical pleural thickening.",
        "There is {sev} {side} apical pleural thickening.",
    ),
    (P.PLEURAL_OTHER, "lateral"): (
        "There is {sev} {side} (lateral|chest wall) pleural thickening.",
        "{Sev} pleural thickening (is seen|is noted|is present) along the {side} chest wall.",
    ),
    (P.PLEURAL_OTHER, "plaque"): (
        "Calcified pleural (plaques|thickening) (is_are seen|is_are present) on the {side}.",
        "There (is|are) {side} calcified pleural (plaques|thickening).",
    ),
    (P.FRACTURE, "rib"): (
        "There (is a|are) (displaced|{displaced}) {ribs_phrase}.",
        "(Displaced|{Displaced}) {ribs_phrase} (is_are seen|is_are present|is_are noted).",
    ),
    (P.FRACTURE, "clavicle"): (
        "There is a {displaced} fracture of the {side} clavicle.",
        "(Fracture|{Displaced} fracture) of the (mid |){side} clavicle (is seen|is present|is noted).",
        "{Displaced} {side} clavicle fracture.",
    ),
}

HEDGED: dict[tuple[Pathology, str], tuple[str, ...]] = {
    (P.EDEMA, "interstitial"): (
        f"Bilateral interstitial opacities {_MAYBE} {{sev}} pulmonary edema.",
        "Diffuse interstitial opacities, possibly {sev} edema.",
    ),
    (P.EDEMA, "alveolar"): (
        f"Bilateral perihilar opacities {_MAYBE} pulmonary edema.",
        "Perihilar airspace opacities, (likely|possibly) pulmonary edema.",
    ),
    (P.CONSOLIDATION, "dense"): (
        f"Airspace opacity in the {{place}} {_MAYBE} consolidation.",
        "Dense opacity in the {place}, possibly consolidation.",
    ),
    (P.PNEUMONIA, "patchy"): (
        f"Patchy opacity in the {{place}} {_WORRY} pneumonia.",
        "Patchy opacities in the {place}, (possibly|suspicious for|concerning for) pneumonia.",
        f"{{Sev}} patchy airspace opacity in the {{place}} {_WORRY} pneumonia.",
    ),
    (P.ATELECTASIS, "bands"): (
        f"Linear opacities at the {{base}} {_MAYBE} atelectasis.",
        "(Streaky|Bandlike) opacities at the {base}, (possibly|probably) atelectasis.",
    ),
    (P.ATELECTASIS, "lobar"): (
        f"Opacity in the {{place}} {_MAYBE} atelectasis.",
        "{Place} opacity, (possibly|probably) due to atelectasis.",
    ),
    (P.LUNG_LESION, "nodule"): (
        f"A {{size}} rounded opacity in the {{place}} {_WORRY} a pulmonary nodule.",
        "{Size} rounded opacity in the {place}, possibly a pulmonary nodule.",
    ),
    (P.LUNG_LESION, "nodules"): (
        f"Multiple bilateral rounded opacities {_MAYBE} pulmonary nodules, measuring up to {{size}}.",
    ),
    (P.LUNG_LESION, "mass"): (
        f"A {{size}} rounded opacity in the {{place}} {_WORRY} a mass.",
        "{Size} opacity in the {place}, possibly a lung mass.",
    ),
    (P.PLEURAL_EFFUSION, "meniscus"): (
        f"{{Blunting}} of the {{angles}} {_MAYBE} {{extent_an}} pleural effusion(s).",
        "Possible {extent} {side} pleural effusion(s).",
    ),
    (P.PLEURAL_OTHER, "apical"): ("Possible {sev} {side} apical pleural thickening.",),
    (P.PLEURAL_OTHER, "lateral"): ("Possible {sev} {side} lateral pleural thickening.",),
    (P.PLEURAL_OTHER, "plaque"): ("Possible {side} calcified pleural plaques.",),
}

SUMMARY: dict[tuple[Pathology, str], tuple[str, ...]] = {
    (P.CARDIOMEGALY, "enlarged"): ("{Sev} cardiomegaly", "Cardiomegaly", "{Sevly} enlarged heart"),
    (P.ENLARGED_CARDIOMEDIASTINUM, "widened"): ("Widened mediastinum", "{Sev} widening of the mediastinum"),
    (P.LUNG_LESION, "nodule"): ("{Size} {place} nodule", "{Place} pulmonary nodule"),
    (P.LUNG_LESION, "nodules"): ("Multiple (pulmonary|bilateral pulmonary) nodules",),
    (P.LUNG_LESION, "mass"): ("{Size} {place} mass", "{Place} lung mass"),
    (P.LUNG_OPACITY, "hazy"): ("{Place} opacity", "Hazy opacity in the {place}"),
    (P.EDEMA, "interstitial"): ("{Sev} pulmonary edema", "{Sev} interstitial edema"),
    (P.EDEMA, "alveolar"): ("{Sev} pulmonary edema", "Pulmonary edema"),
    (P.CONSOLIDATION, "dense"): ("{Place} consolidation", "{Sev} consolidation in the {place}"),
    (P.PNEUMONIA, "patchy"): ("{Place} pneumonia", "Pneumonia in the {place}"),
    (P.ATELECTASIS, "bands"): ("{Basal} atelectasis", "{Sev} atelectasis at the {base}"),
    (P.ATELECTASIS, "lobar"): ("{Place} atelectasis", "Atelectasis of the {place}"),
    (P.PNEUMOTHORAX, "apical"): ("{Extent} {side} (apical |)pneumothorax",),
    (P.PNEUMOTHORAX, "lateral"): ("{Extent} {side} pneumothorax",),
    (P.PLEURAL_EFFUSION, "meniscus"): ("{Extent} {side} pleural effusion(s)", "{Side} pleural effusion(s)"),
    (P.PLEURAL_OTHER, "apical"): ("{Side} apical pleural thickening",),
    (P.PLEURAL_OTHER, "lateral"): ("{Side} pleural thickening",),
    (P.PLEURAL_OTHER, "plaque"): ("{Side} calcified pleural (plaques|thickening)",),
    (P.FRACTURE, "rib"): ("{Side} rib fracture(s)", "{Displaced} {ribs_phrase}"),
    (P.FRACTURE, "clavicle"): ("{Side} clavicle fracture", "{Displaced} fracture of the {side} clavicle"),
}

HEDGED_SUMMARY = "(Possible|Suspected|Probable) {summary}"

DEVICES: dict[str, tuple[str, ...]] = {
    "endotracheal_tube": (
        "(An endotracheal tube|Endotracheal tube) (terminates|ends) {tip} cm above the carina.",
        "The tip of the endotracheal tube is {tip} cm above the carina.",
    ),
    "enteric_tube": (
        "(An enteric tube|A nasogastric tube|Enteric tube) (courses|passes|extends) below the diaphragm.",
        "(Nasogastric|Enteric) tube with its tip in the stomach.",
    ),
    "jugular_line": (
        "A {side} internal jugular (central venous catheter|central line|catheter) (terminates in|ends in) the superior vena cava.",
        "{Side} internal jugular central venous catheter with tip in the (SVC|lower SVC).",
    ),
    "picc": (
        "A {side} (PICC|PICC line) (terminates in|ends in|has its tip in) the (superior vena cava|SVC).",
        "{Side} upper extremity PICC with tip in the SVC.",
    ),
    "port": (
        "A {side} chest (port|wall port) catheter (terminates in|ends in) the (superior vena cava|SVC).",
        "{Side} chest Port-A-Cath with tip in the SVC.",
    ),
    "pacemaker": (
        "A {side} (chest wall pacemaker|pacemaker|dual-lead pacemaker) with leads (in|projecting over) the right atrium and right ventricle.",
        "{Side} (pacemaker|dual-chamber pacemaker) (is in place|is present|is noted).",
    ),
    "chest_tube": (
        "A {side} (chest tube|pleural drainage catheter) (is in place|is present|is seen).",
        "{Side} chest tube (projects over the {side} lung|in place).",
    ),
    "valve": (
        "A prosthetic (heart|cardiac|aortic) valve (is present|is noted|is seen).",
        "Prosthetic (aortic|cardiac) valve and sternotomy wires are (present|seen|noted).",
    ),
}

DEVICE_SUMMARY: dict[str, str] = {
    "endotracheal_tube": "Endotracheal tube (in place|as described)",
    "enteric_tube": "Enteric tube (in place|as described)",
    "jugular_line": "{Side} internal jugular catheter (in place|as described)",
    "picc": "{Side} PICC (in place|as described)",
    "port": "{Side} chest port (in place|as described)",
    "pacemaker": "{Side} pacemaker (in place|as described)",
    "chest_tube": "{Side} chest tube (in place|as described)",
    "valve": "Prosthetic valve",
}

NORMAL_HEART_AND_MEDIASTINUM = (
    "(The cardiomediastinal silhouette|Cardiomediastinal silhouette) is (normal|within normal limits|unremarkable).",
    "(The heart size|Heart size) and mediastinal contours are (normal|within normal limits|unremarkable).",
    "The heart is normal in size. The mediastinum is (unremarkable|not widened|normal).",
    "(Heart size is|The heart size is|Cardiac size is) (normal|within normal limits).",
)
NORMAL_HEART = (
    "(Heart size is|The heart size is) (normal|within normal limits).",
    "The cardiac silhouette is (normal in size|not enlarged|within normal limits).",
)
NORMAL_MEDIASTINUM = (
    "The mediastinal contours are (normal|unremarkable|within normal limits).",
    "The mediastinum is (not widened|unremarkable|normal).",
)
CLEAR_LUNGS = (
    "The lungs are (clear|clear bilaterally|well expanded and clear).",
    "Lungs are (clear|well aerated and clear).",
    "(No focal consolidation|No focal airspace opacity|No focal airspace disease) (is seen|is identified|is present).",
    "There is no focal (consolidation|airspace opacity|opacity).",
    "The lungs are clear without (focal consolidation|focal opacity).",
)
NO_EFFUSION_NO_AIR = (
    "(No pleural effusion or pneumothorax|No pneumothorax or pleural effusion) (is seen|is identified|is present).",
    "There is no (pleural effusion or pneumothorax|pneumothorax or pleural effusion).",
    "No pneumothorax. No pleural effusion.",
    "There is no evidence of pleural effusion or pneumothorax.",
)
NO_EFFUSION = (
    "No pleural effusion (is seen|is identified|is present).",
    "There is no (pleural effusion|effusion).",
)
NO_AIR = ("No pneumothorax (is seen|is identified).", "There is no (pneumothorax|evidence of pneumothorax).")
NO_EDEMA = ("(There is no|No evidence of|No) (pulmonary edema|edema).", "No (overt|frank) pulmonary edema.")
NO_LESION = (
    "No suspicious (pulmonary nodule|nodule or mass|nodule).",
    "There is no pulmonary (nodule|mass).",
)
NO_FRACTURE = (
    "No (acute fracture|displaced fracture|displaced rib fracture) (is seen|is identified).",
    "There is no (acute fracture|displaced fracture).",
)
NORMAL_BONES = (
    "(The osseous structures|Osseous structures|The bony structures) are (intact|unremarkable).",
    "(The visualized bones|The bony thorax|Visualized osseous structures) (is_are unremarkable|is_are intact).",
)
NORMAL_SUMMARY = (
    "No acute cardiopulmonary (abnormality|process|disease|findings).",
    "No acute (intrathoracic process|cardiopulmonary abnormality identified).",
    "Normal (chest radiograph|chest x-ray|examination of the chest).",
    "No (radiographic evidence of|evidence of) acute cardiopulmonary disease.",
)

TECHNIQUE_AP = "(Even allowing for|Allowing for) (AP technique|the AP projection), {rest}"

# Sentences that compare with an examination that does not exist. They are written only on request, for
# exemplars, so that their removal can be tested.
PRIOR_GENERAL = (
    "(Compared with|In comparison with|Compared to) the (prior|previous) (study|radiograph|examination), there (is|has been) no significant change.",
    "No significant interval change (since|compared with) the (prior|previous) (study|examination).",
    "(Findings are|The appearance is) (unchanged|stable|similar) (since|compared to) the (prior|previous) (study|examination) (of|from) {date}.",
    "Comparison (is made|was made) to the (prior|previous) radiograph (of|from|dated) {date}.",
)
PRIOR_OF = (
    "The {noun} (has increased|has decreased|has worsened|has improved) (since|compared with) the (prior|previous) (study|examination).",
    "Compared with the (prior|previous) (study|radiograph) (of|from) {date}, the {noun} is (larger|smaller|unchanged|slightly improved).",
    "(Interval worsening|Interval improvement|Interval increase) of the {noun}.",
    "The {noun} is (unchanged|stable|again seen) (from|as compared to) the (prior|previous) (study|examination).",
)
NOUN: dict[Pathology, str] = {
    P.CARDIOMEGALY: "cardiomegaly",
    P.ENLARGED_CARDIOMEDIASTINUM: "mediastinal widening",
    P.LUNG_LESION: "lung lesion",
    P.LUNG_OPACITY: "opacity",
    P.EDEMA: "pulmonary edema",
    P.CONSOLIDATION: "consolidation",
    P.PNEUMONIA: "pneumonia",
    P.ATELECTASIS: "atelectasis",
    P.PNEUMOTHORAX: "pneumothorax",
    P.PLEURAL_EFFUSION: "pleural effusion",
    P.PLEURAL_OTHER: "pleural thickening",
    P.FRACTURE: "fracture",
}
