"""The shapes of sentences that compare with earlier images; ``comparisons`` says what is done with each."""

from __future__ import annotations

import re

from models.labeler.comparison_words import ADV, CHANGE, DATE, DIMENSION, PRIOR, STUDY, TAIL

START_COMPARISON = re.compile(
    rf"^(?:(?:as|when) )?(?:compared|in comparison|comparing|comparison (?:is|was) made|relative|in contrast)"
    rf" (?:to|with) {PRIOR}{TAIL}(?:, | and (?=there)|(?= there | the ))",
    re.I,
)
START_SINCE = re.compile(
    rf"^(?:since|in the interval|in the interim|interval|from|as on|as noted on|as before|again|once again|"
    rf"as previously (?:seen|noted|described))(?: (?:since )?{PRIOR}{TAIL})?,? (?=there|the|a |an |no )|"
    rf"^interval:? ",
    re.I,
)
KNOWN = r"(?:seen|noted|described|demonstrated|visuali[sz]ed|identified|present|known|reported)\b"
PHRASES = re.compile(
    rf",? {ADV}\b(?:increased|decreased|progressed|improved|enlarged|worsened|reduced|up|"
    rf"down) from [a-z ]{{1,25}}?"
    rf"(?: (?:on|in|at) {PRIOR}{TAIL})?(?=,|;|$)"
    rf"|,? {ADV}(?:improved|improving|increased|decreased|worsened|unchanged|stable|better|new) (?:on|in|at) "
    rf"(?:the )?(?:\w+ ?){{1,3}},? (?:and|but|while) {ADV}{CHANGE} (?:on|in|at) (?:the )?(?:\w+ ?){{1,3}}$"
    rf"|,? ?\(?\b(?:which (?:is|was|were|does) )?not (?:appear to be |\w+ly )?(?:seen|visuali[sz]ed|"
    rf"present|noted|identified|"
    rf"evident) (?:(?:on|in) {PRIOR}{TAIL}|previously|before|earlier)"
    r"|,? ?\(?(?:previously|formerly|versus|vs\.?|was|compared (?:to|with)|before) \d+(?:\.\d+)? ?(?:cm|mm)"
    r"(?: (?:previously|before|earlier))?\)?"
    rf"|,? ?\(?\b(?:without|with no|with little) (?:\w+ )*?(?:change|comparison studies|comparisons?|"
    rf"prior studies)\b"
    rf"|,? ?\(?\b(?:(?:as|when) )?(?:(?:compared|in comparison|relative|in contrast)(?: (?:to|with|"
    rf"from))? {PRIOR}{TAIL}"
    rf"|(?:since|from|than|than on|than in|on|to|with|as on|as in|as seen on|as noted on|seen on|noted on|"
    rf"present on|over) {PRIOR}{TAIL}"
    rf"|than (?:it|they|that) (?:was|were|had been)(?: (?:previously|before|earlier))?"
    rf"(?: (?:on|in|at) {PRIOR}{TAIL})?"
    rf"|on (?:today's|the current|the present|this) {STUDY}"
    rf"|for (?:at least |more than |over |the (?:last|past) |about |approximately )*(?:\d+|one|two|three|"
    rf"four|"
    rf"five|six|several|many) (?:\+ )?(?:hours?|days?|weeks?|months?|years?)"
    rf"|(?:over|during|in) the (?:short |long )?(?:interval|interim)|over (?:the )?(?:(?:last|"
    rf"past|course of) )?(?:the )?(?:\w+ )?(?:hours?|days?|weeks?|months?|years?)"
    rf"|which (?:is|are|was|were|has|have)(?: been)? (?:not )?{ADV}{CHANGE}{DIMENSION}(?=$|,|;)"
    rf"|(?:was|were) (?:also |already )?(?:present|seen|noted|visible) (?:on|in) {PRIOR}{TAIL}(?: and)?"
    rf"|and (?:is|are|has been|have been) {ADV}{CHANGE}{DIMENSION}(?=$|,|;)"
    rf"|and (?:has|have) {ADV}(?:increased|decreased|improved|worsened|progressed|enlarged|diminished)"
    rf"{DIMENSION}(?=$|,|;)"
    rf"|(?:with|and) (?:\w+ )?(?:interval )?(?:progression|worsening|improvement|growth|enlargement|increase|"
    rf"decrease)(?: in size)?(?=$|,|;)"
    rf"|(?<=, )(?:previously|formerly) (?!{KNOWN})[a-z ]{{1,30}}(?=,|;|$)"
    rf"|(?:previously|formerly) [a-z ]{{1,30}}(?=,)"
    rf"|dating back to {DATE}|since at least {DATE}|with (?:only |an? )?(?:\w+ )?residual(?: component)?$"
    rf"|(?:similar|unchanged|stable) (?:to|from|as) (?:before|earlier|previously)"
    rf"|as well(?=$|,|;)|(?:there (?:is|are|has been|have been) )?(?:,|with)? ?no (?:significant |"
    rf"interval |relevant |definite )*change$"
    rf"|(?<=, ){ADV}(?:lower|higher|deeper) than (?:(?:on|in|at) )?{PRIOR}{TAIL}"
    rf"|(?:seen|noted|described|identified|visuali[sz]ed) (?:previously|before|earlier)"
    rf"|with (?:better|improved) (?:\w+ )?(?:aeration|expansion|inflation)(?=$|,|;)"
    rf"|(?:stable|similar|unchanged) (?:to|or) {ADV}(?:improved|worse\w*|increased|decreased|larger|smaller)"
    rf"(?: (?:from|since|compared (?:to|with)) {PRIOR}{TAIL})?"
    rf"|(?:- ?)?(?:which|that|as) (?:(?:is|was|are|were) )?(?:better|best|more readily) (?:seen|demonstrated|"
    rf"visuali[sz]ed|evaluated|characteri[sz]ed) (?:on|in) {PRIOR}{TAIL}"
    rf"|(?:even )?(?:allowing|accounting) for [^,;]+|(?<!to )today(?!')"
    rf"|(?:following|after|status post) (?:interval )?(?:removal of [^,;]+|(?:\w+ ){{0,3}}removal)"
    rf"|as (?:before|seen previously|noted previously|previously (?:seen|noted|described|demonstrated)|"
    rf"previously)|than before|from before|"
    rf"compared to before|in comparison|for comparison|previously(?: (?:seen|noted|described|"
    rf"demonstrated))?)\b\)?",
    re.I,
)
PREVIOUSLY = re.compile(
    r"(?<!is )(?<!are )\b(?:again |previously |formerly |newly )(?:seen|noted|described|identified|"
    r"demonstrated|"
    r"visuali[sz]ed|mentioned|reported|"
    r"known|present|questioned)\b (?=[a-z0-9])",
    re.I,
)
AGAIN_SEEN = re.compile(
    r"^(?:again|once again|still|re-?)(?: is| are)? ?(?:seen|noted|demonstrated|identified|"
    r"visuali[sz]ed)(?: again)?(?: (?P<be>is|are))?,? (?=\w)"
    r"|^(?:there (?:is|are) )?re-?demonstrat(?:ion of|ed(?: (?:is|are))?) (?=\w)",
    re.I,
)
DROP = re.compile(
    rf"^(?:comparison\b|compared (?:to|with) {PRIOR}|(?:there (?:is|are|has been|"
    rf"have been) )?no (?:\w+ )*?(?:change|changes|difference)s?\b"
    rf"(?! (?:in|of|to) )|there (?:is|are|has been|have been) no (?:\w+ )*?change\b(?! in)|no prior|"
    rf"no previous|there (?:is|are) no (?:prior|previous|comparison)|"
    rf"(?:un)?changed$|{ADV}(?:stable|unchanged|similar)(?: \w+)? (?:chest|exam\w*|stud\w+|appearance|"
    rf"radiograph\w*|x-?ray|findings?|examination)\b(?=$|,| without| compared| since| from| with no|"
    rf" of the chest| for|:).*$|"
    rf"(?:stable|unchanged|improved|worsened|new)$|(?:follow-?up|interval follow-?up)$|interval change\b|"
    rf"prior (?:exam|stud|film|radiograph|chest)\w*|(?:complete |near[- ]complete )?(?:clearing|resolution|"
    rf"re-?expansion|evacuation|drainage) of\b)"
    rf"|\b(?:resolved|resolution|cleared|no longer|has been removed|have been removed|was removed|"
    rf"were removed|been extubated|extubation|"
    rf"interval removal|interval clearing|near[- ]complete clearing)\b|"
    rf"^(?:there (?:is|has been) )?removal of|^there has been (?:\w+[- ])*(?:re-?expansion|clearing|"
    rf"resolution|"
    rf"evacuation|drainage) of|\b(?:is|was|are) compared (?:to|with)\b|"
    rf"\bprior (?:\w+ )?{STUDY} (?:is|are|was|were) (?:not )?available",
    re.I,
)
NO_CHANGE_IN = re.compile(
    rf"^(?:there (?:is|are|has been|have been) )?{ADV}(?:no|without|little|minimal)(?: \w+)*? (?:changes?|"
    r"increase|decrease|difference|"
    r"improvement|worsening|progression) (?:(?:in|of|to) )?(?:(?:the )?(?:size|appearance|extent|degree|"
    r"position|severity)"
    r"(?: and \w+)? of )?(?:the )?(?P<what>.+)$",
    re.I,
)
INTERVAL_CHANGE = re.compile(
    rf"^(?P<there>there (?:is|are|has been|have been) )?(?:an? |the )?{ADV}(?:interval |slight |mild |"
    rf"minimal |marked |significant |moderate |some |further |apparent |continued |ongoing |continuing |"
    rf"radiographic |slow |gradual |"
    rf"rapid |steady )*"
    rf"(?P<kind>increase|decrease|worsening|improvement|enlargement|progression|change|placement|insertion|"
    rf"development|appearance|"
    rf"advancement|reduction|repositioning|growth|exchange)s? (?:in|of)(?: (?:the )?(?:size|appearance|"
    rf"extent|degree|position|"
    rf"severity|volume|number)(?: and \w+)? of)? (?P<what>.+)$",
    re.I,
)
PREDICATE = re.compile(
    rf"^(?P<what>.+?) (?:(?:is|are|was|were|remains?|appears? to (?:be|have)|seems? to (?:be|have)|"
    rf"appears?|looks?|seems?|"
    rf"has been|have been|has become|"
    rf"have become|has|"
    rf"have)(?: not)? )"
    rf"{ADV}(?P<change>{CHANGE})(?: (?:to|or) {ADV}{CHANGE})?{DIMENSION}(?: {ADV}(?:in the interval|"
    rf"bilaterally|"
    rf"today))?(?P<rest>(?:,| and| with| or|"
    rf" given| for| suggest\w+| consistent| compatible| concerning| worrisome| likely| due| which|;).*)?$",
    re.I,
)
HAS_CHANGED = re.compile(
    rf"^(?P<what>.+?) (?:has|have)(?: \w+ly)? (?:{ADV})(?:increased|decreased|improved|worsened|"
    rf"progressed|enlarged|diminished|grown|re-?accumulated|re-?curred|re-?appeared|returned|shrunk|"
    rf"doubled|tripled|halved|"
    rf"developed|appeared|changed|not (?:significantly )?changed|decreased|regressed|"
    rf"evolved)(?: (?!bilat)\w+ly)?{DIMENSION}(?: (?!bilat)\w+ly)?(?: to (?:involve|include|occupy|"
    rf"fill)\b.*)?"
    r"(?P<rest>(?:,| and| with| in| on| at| within| bilaterally|;).*)?$",
    re.I,
)
PERSISTS = re.compile(
    r"^(?P<what>.+?) (?:persists?|continues?|remains?)(?! (?:with)?in normal)"
    r"(?P<rest>(?:,|(?: and| with| without| at| in| within| along)\b).*)?$",
    re.I,
)
IN_PLACE = re.compile(r" (?:in|at) (?:place|position|situ|\w+ (?:and \w+ )?(?:position|location))\b", re.I)
SIZE = r"tiny|trace|small|moderate|large|massive"
SIZED = re.compile(rf"(?:\w+ly )?(?:{SIZE})\b", re.I)
GOES_ON = re.compile(
    r"(?:may|might|could|can|which|likely|suggest\w*|consistent|compatible|concerning|due)\b", re.I
)
PLACED = re.compile(
    r"\b(?P<has>has|have) been (?:newly |recently |now )?(?:placed|inserted|introduced)\b", re.I
)
WITH_CHANGE = re.compile(
    rf",? with {ADV}(?:interval |marked |slight |mild |significant )*(?:decrease|increase|improvement|"
    rf"worsening|"
    r"reduction|progression) (?:in|of) (?:the )?(?:size of (?:the )?)?(?=\w)",
    re.I,
)
PROMINENT = re.compile(r"more (?:prominent|conspicuous|pronounced|evident)", re.I)
MARKINGS = re.compile(r"\bmarkings?|\bhil[au]|\bvascul", re.I)
HEART = re.compile(r"(?:the )?(?:cardiac|heart|cardio-?mediast|mediast)", re.I)
OBSERVED = re.compile(
    r"\b(?:post-? ?(?:surgical|operative)|granulom|hernia|deformit|scolio|kypho|tortuo|calcif|hemidiaphragm|"
    r"hyper-?(?:inflat|expan)|crowding|scar|fibro|emphysem|bronchiect|nodes?\b|adenopathy|degenerative|"
    r"osteophyt|"
    r"enlargement|prominence|fullness|elevat|opacif|densit|shadow|lucen|engorge|"
    r"sternotomy|wires?\b|clips?\b|hardware|volume loss|low (?:lung )?volumes|congestion|blunting|"
    r"thickening)",
    re.I,
)
"""What is no pathology of the 14 and yet seen on the image."""
TRAILING = re.compile(
    rf",? ?[(]?(?<=[ ,(])\b{ADV}(?<!be )(?<!no ){CHANGE}(?: appearance| position|{DIMENSION})[)]?(?=$|,|"
    rf";|\)| and (?:no|the|there)\b)",
    re.I,
)
REMAINS = re.compile(
    r"\b(?P<verb>remains?|continues? to be|has remained|have remained)(?: again)? (?=\w)", re.I
)
CONTINUES = re.compile(r"\bcontinues? to (?=[a-z])", re.I)
STILL = re.compile(
    r"\b(?:still|again|once again|now|newly|persistently|progressively|interval|"
    r"re-?demonstrated) (?=[a-z])|,? (?:once )?again\b",
    re.I,
)
PRENOUN = re.compile(
    rf"(?:\bbut )?\b{ADV}(?:(?:stable|unchanged|similar)(?:[- ]appearing)?|persistent|persisting|new|"
    rf"interval|increasing|decreasing|improved|improving|worsened|worsening|"
    rf"enlarging|continued|continuing|pre-?existing|resolving|developing|evolving|residual|progressive|"
    rf"progressing|"
    rf"recurrent|unaltered|comparable|static|growing|increasingly|"
    rf"previous|more prominent|less prominent|larger|smaller)(?:,| and| or)? (?!(?:on|than|at|"
    rf"in)\b)(?=[a-z0-9])",
    re.I,
)
PRENOUN_SIZE = re.compile(
    rf"\b{ADV}(?:increased|decreased|diminished|reduced) (?=(?:(?:the|a|an|in|size|of|left|right|"
    rf"bilateral|small|large|moderate|mild|pleural|lower|"
    rf"upper|middle|lobe|basilar|bibasilar|pulmonary|interstitial|apical|hilar|perihilar) )*(?:effusions?|"
    rf"atelecta|consolid|edema|pneumothora|nodul|mass|"
    rf"cardiomegal|pneumonia|infiltrat|airspace))",
    re.I,
)
ABOUT_PRIOR = re.compile(
    rf"^(?:on|in|at the time of) (?!comparison){PRIOR}{TAIL}(?: \([^)]*\))?,? (?!there (?:is|are))", re.I
)
GONE_WITH = re.compile(
    r"^(?:there has been )?(?:(?:interval|complete|near[- ]complete|partial|significant|further) )*"
    r"(?:removal|resolution|clearing|re-?expansion|evacuation|drainage) of [^,]*?(?:,(?: with| and)?|"
    r" with) (?P<rest>.+)$"
    r"|^.+? (?:has|have) (?:(?:nearly|almost|largely|mostly|essentially|completely|entirely|now|since|"
    r"interval|"
    r"been) )*(?:resolved|cleared|re-?expanded|disappeared),? (?:with|leaving)(?: only)? (?P<left>.+)$",
    re.I,
)
GONE_IN_PART = re.compile(
    r"\b(?P<has>has|have) (?:now |since )?(?:partially|partly|incompletely|somewhat|slightly) "
    r"(?:resolved|cleared)\b"
    r"|^(?:there (?:is|has been) )?(?:interval )?(?:partial|incomplete) (?:interval )?(?:resolution|clearing)"
    r" of (?:the )?",
    re.I,
)
NORMAL_AS_BEFORE = re.compile(
    rf"^(?:the )?{ADV}(?:stable|unchanged|similar)(?:[- ]appearing)?(?: \w+)? (?:chest|exam\w*|stud\w+|"
    rf"appearance|radiograph\w*|x-?ray)(?: (?:radiograph\w*|x-?ray|film|exam\w*))?(?: of the chest)?,? "
    rf"(?:(?P<no>without|with no)(?: evidence (?:of|for))?(?: any)? (?P<what>(?!(?:\w+ )*?change).+)"
    rf"|with (?P<rest>.+))$",
    re.I,
)
NEW_IS = re.compile(
    rf"^(?:also )?new(?: (?:from|since|compared (?:to|with)|in comparison (?:to|with)|relative to)"
    rf" {PRIOR}{TAIL})?,? (?P<be>is|are) (?=\w)",
    re.I,
)
MOVED_TIP = re.compile(
    r"\b(?:has|have) (?:since |now |interval )?been (?:slightly |interval )?(?:advanced|pulled back|"
    r"withdrawn|"
    r"repositioned|retracted|exchanged)(?: slightly)?,? (?:and|with) (?:its|the|"
    r"their) (?P<tip>tips?) (?:is |are |"
    r"lies |terminates |terminating |ends )?(?:now )?",
    re.I,
)
REPLACED = re.compile(
    r"^.+? (?:has|have) (?:since |now )?been (?:replaced|exchanged|substituted) (?:by|with|"
    r"for) (?P<rest>.+)$",
    re.I,
)
REDEMONSTRATED = re.compile(r"(?<=is )re-?demonstrated\b|(?<=are )re-?demonstrated\b", re.I)
MIGRATED = re.compile(
    r"\b(?:has|have) (?:since |now )?(?:migrated|moved)(?: (?:slightly|proximally|distally|cranially|"
    r"caudally))?,? "
    r"and (?:is |are )?(?:now )?",
    re.I,
)
PATIENT_HAS = re.compile(
    r"^(?:the )?patient has (?:now |since )?(?:developed|acquired|received) (?=\w)", re.I
)
ASIDE = re.compile(
    rf",? (?:with )?(?:the |an? )?(?:previous|prior|earlier|"
    rf"known)(?:ly)? [^,;]*? having (?:\w+ )?(?:resolved|cleared|"
    rf"improved|decreased)\b,?|,? (?:some|most|many|several|all|both|one) of which (?:is|are|has|"
    rf"have)\b[^,;]*$"
    rf"|(?<=\w),? with (?:\w+ ){{0,2}}(?:resolution|clearing|re-?expansion|evacuation|removal) of [^,;]*$"
    rf"|,? which (?:was|were) [^,;]*?(?:on|in|at) {PRIOR}{TAIL},?"
    rf"| (?:previously|formerly) (?:in|at|within|over|projecting) [^,;]*?(?= (?:has|have|is|are)\b)",
    re.I,
)
FROM_TO = re.compile(
    r"(?:,|\b(?:has|have))? (?:now )?(?:increased|decreased|grown|enlarged|diminished|"
    r"shrunk)(?: in size)? from "
    r"(?:\d+(?:\.\d+)? ?(?:cm|mm) to )(?P<now>\d+(?:\.\d+)? ?(?:cm|mm))",
    re.I,
)
MEASURES = {"has": "measures", "have": "measure"}
DEVELOPMENT = re.compile(
    r"\b(?:(?P<none>(?:(?:has|have) been )?no (?:(?:interval|new) )*)|(?<!been )(?:(?:interval|new) )+)"
    r"(?:development|appearance|recurrence|onset) of (?:new )?",
    re.I,
)
PRONOUN = re.compile(r"(?:this|these|it|they|those|(?:the )?(?:findings?|appearance))\b", re.I)
MEASURE_OF = re.compile(
    r"^(?:the )?(?:overall )?(?:degree|extent|size|severity|amount|volume|distribution) of (?:the )?", re.I
)
SAYS_NOTHING = re.compile(
    rf"{PRONOUN.pattern} (?:is|are|was|were|has|have|appears?)(?: (?:to|seen|well|noted|\w+ly))*", re.I
)
ACUTE_OR = re.compile(
    r"\b(acute|active) (?:or|and) (?:progressive|new|worsening|recurrent|interval|developing) ", re.I
)
HAS_BEEN = re.compile(r"\b(?P<has>has|have) been (?=(?:present|seen|noted|known)\b)", re.I)
MOVED = re.compile(
    r"\b(?:has|have) (?:since |now )?been (?:advanced|pulled back|withdrawn|repositioned|retracted|exchanged)"
    r"(?: slightly)?(?:(?P<into> (?:in)?to )|(?:,| and)?(?P<verb> is| are|)(?: now)? (?=\w))",
    re.I,
)
IN_POSITION = re.compile(
    rf"\bin (?:an? |the )?{ADV}(?:stable|unchanged|similar|same),? (?:\w+ )?(?:position|location|place)\b",
    re.I,
)
APPEARANCE_OF = re.compile(
    rf"\b(?:an? |the )?{ADV}(?:stable|unchanged|similar) (?:position|positioning|appearance|configuration|"
    rf"size|extent|location)s? of (?:the )?(?=[a-z])",
    re.I,
)
NORMAL_AND_STABLE = re.compile(
    r"\b(normal|unremarkable|clear|enlarged|small|large) (?:and|but) (?:stable|unchanged)\b", re.I
)
BARE_ORGAN = re.compile(
    r"^(?:there (?:is|are) |(?:frontal|lateral|pa|two|the) .*(?:show|demonstrate)s? )?(?:an? |the )?(?:and|"
    r"size|of the|cardiac|cardio-?mediastin\w+|mediastin\w+|"
    r"heart|hilar|silhouettes?|contours?|lungs?|volumes?|appearance|examination|chest|study|position|"
    r"configuration|superior|"
    r"pulmonary|vascularity|vasculature|structures?|bony|osseous|thorax|x{3,}|[ ,])+$",
    re.I,
)
CLAUSE = re.compile(r"(;\s*|,? but |,? however,? |,? although |,? while |,? whereas )", re.I)
AND = re.compile(r",? and (?=[a-z])", re.I)
EMPTY = re.compile(
    r"^(?:the|a|an|there (?:is|are|has been|have been)|is|are|and|with|in|of|at|no|this|it|these|"
    r"findings?|otherwise|overall|"
    r"essentially|not|,|\W)*$",
    re.I,
)
NO_CHANGE_BUT = re.compile(r"^(?:there (?:is|has been) )?no (?:\w+ )*?changes?: ?(?=\w)", re.I)
PERSISTS_THERE = re.compile(r"^(?:persists?|remains?|continues?) (?=(?:on|in|at)\b)", re.I)
SHOWS_CHANGE = re.compile(
    r"(?<!to )\bshows? (?:partial |some |interval |mild |slight |further )*"
    r"(?:clearing|improvement|resolution|worsening|progression)\b",
    re.I,
)
STABLE_AND = re.compile(
    r" (?:and|or|but) (?:stable|unchanged) (?=position|location|configuration)"
    r"|(?<=mild|rate|vere|mall|arge|imal|race|rked|fuse|eral|onic),(?= (?:stable|unchanged|persistent) "
    r"(?!(?:from|since|compared|in|to|when|as)\b)[a-z])",
    re.I,
)
AERATION_WITH = re.compile(
    r"^(?:the )?(?:\w+ )*aeration(?: (?:of|in|at) [^,]*?)?,? with (?:an? )?(?=\w)", re.I
)
