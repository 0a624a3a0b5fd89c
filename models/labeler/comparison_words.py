"""The vocabulary of comparison: other studies, dates, degrees of change, and what only sounds like one."""

from __future__ import annotations

import re

ADV = (
    r"(?:(?:slightly|mildly|minimally|moderately|markedly|significantly|substantially|essentially|grossly|"
    r"relatively|largely|overall|somewhat|generally|now|also|completely|partially|nearly|much|"
    r"subtly|"
    r"newly|interval|otherwise|very|further|a little|little|not significantly|still|"
    r"clinically|"
    r"mostly|roughly|fairly|radiographically|again|likely|probably|about|approximately|appreciably|"
    r"perceptibly|noticeably|considerably|"
    r"dramatically) )*"
)
STUDY = (
    r"(?:radiographs?|radiography|stud(?:y|ies)|exam(?:ination)?s?|films?|images?|imaging|x-?rays?|cxrs?|"
    r"ct(?: (?:scans?|scout|(?:of the )?chest|(?:of the )?thorax))?(?: (?:study|exam\w*))?|"
    r"scans?|comparisons?|views?|chest(?! (?:x|ct|cxr|radio|film|stud|exam|scan|image))|priors?|reports?|"
    r"tomogra\w+|one|day)"
)
DATE = (
    r"(?:\d{1,4}[-/.]\d{1,2}(?:[-/.]\d{2,4})?|(?:\d{1,2} )?(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|"
    r"apr(?:il)?|may|june?|"
    r"july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?(?: \d{1,2})?"
    r"(?:,? \d{4})?|(?:19|20)\d\d|x{4}(?:[ ,/-]+x{4})*|_{2,}|"
    r"yesterday(?:'s (?:exam\w*|stud\w+|film|radiograph))?|last (?:week|month|year|night)|"
    r"earlier today|(?:earlier )?(?:on )?(?:the same|this|that) (?:day|morning|afternoon|evening)|"
    r"(?:one|two|three|four|five|six|seven|several|\d+) (?:hours?|days?|weeks?|months?|years?) (?:ago|"
    r"earlier|prior|before))"
)
OLD = (
    r"(?:prior|previous|earlier|preceding|last|most recent|recent|old|older|outside|comparison|initial|"
    r"baseline|remote)"
)
PRIOR = (
    rf"(?:(?:the|a|an|any|his|her|patient's|multiple|several|that)? ?(?:{OLD} )+(?:(?:\w+|"
    rf"\d+[-/]\d+[-/]\d+) ){{0,3}}?{STUDY}\b"
    rf"|(?:the )?(?:prior|previous|priors|comparison)(?=$|[,.;:)]| (?:and|with|but|no|there|given|from|is|"
    rf"are|likely|may|"
    rf"which|suggest\w*|represents?|"
    rf"of) )|(?:the )?{STUDY} (?:(?:from|of|dated|performed) )?(?:on )?{DATE}|"
    rf"(?:the )?{DATE} {STUDY}\b|{DATE})"
)
TAIL = (
    rf"(?:(?:,)? (?:from|of|dated|performed|obtained|done|on|at|taken)(?: on)?(?: approximately)? {DATE}|"
    rf" {DATE})*"
)
CHANGE = (
    r"(?:better (?:aerated|expanded|inflated|visuali[sz]ed)|waxing and waning|denser|wider|"
    r"clearer|fuller|thicker|unaltered|comparable|constant|identical|static|growing|"
    r"regressing|(?:more|"
    r"less) [a-z]+(?! than the)|unchanged|stable|similar|(?:the )?same|improved|improving|worse|worsened|"
    r"worsening|"
    r"better|increased|"
    r"increasing|decreased|"
    r"decreasing|diminished|larger|smaller|bigger|progressed|changed|not changed|enlarging|regressed|"
    r"resolving|"
    r"more (?:prominent|conspicuous|pronounced|extensive|evident|confluent)|less (?:prominent|conspicuous|"
    r"pronounced|"
    r"extensive|evident|confluent)|persistent|new|reduced|evolving)"
)
DIMENSION = (
    r"(?: (?:in|with respect to) (?:(?:size|density|extent|number|severity|appearance|prominence|"
    r"volume|degree|position) and \w+|size|appearance|position|extent|degree|configuration|severity|"
    r"volume|number|"
    r"distribution|location|contour|density|conspicuity|opacity|prominence|size and \w+|overall \w+|shape|"
    r"the \w+ (?:lung|base|lobe)))?"
)
VERB = r"(?:is|are|was|were|has|have|had|remains?|appears?|looks?|seems?|shows?|demonstrates?|persists?)"

HISTORY = re.compile(
    r"\b(?:prior|previous|old|remote)(?= (?:[\w-]+ ){0,2}(?:granulom|surg|sternotom|cabg|fractur|infect|"
    r"tubercul|histoplas|trauma|resect|lobectom|"
    r"mastectom|thoracotom|procedure|bypass|operat|cholecyst|intervention|fusion|injur|infarct|radiation|"
    r"inflamm|rib|valve|disease|asbestos|healed|"
    r"vertebro|kypho|pneumonect|median|coronary|aortic|thoracic|spin|arthroplast|repair|biops|wedge|hist))",
    re.I,
)
RESIDUAL = re.compile(
    r"\b(?:prior|priors|previous|previously|unchanged|interval|interim|compar\w+|since|again|stable|"
    r"improv\w+|worse\w*|new|newly|(?:increase|decrease)s? in|"
    r"(?:is|are|appears?) constant|waxing and waning|"
    r"doubled|tripled|halved|unaltered|comparable|identical|static|growing|former|today's|recurrent|"
    r"residual|evolving|"
    r"better (?:aerat|expand|inflat)\w+|persist\w*|resol\w+|remains?|increasing|decreasing|"
    r"re-?demonstrat\w+|similar|no longer|progress\w+|"
    r"earlier|"
    r"enlarging|continued|continues?|developing|ago|yesterday|than|re-?appeared|re-?curred|has become|"
    r"have become|re-?accumulat\w+|changed?|"
    r"baseline|"
    r"last (?:exam|study|film|radiograph|week|month|year)|has (?:\w+ )?(?:increased|decreased|developed)|"
    r"have (?:\w+ )?(?:increased|decreased|developed)|now|still|today|formerly|"
    r"(?:is|are|looks?|appears?) (?:\w+ly )?(?:smaller|larger|lower|higher|better)(?= today|$|,|;| and )|"
    r"(?:is|are|appears?) (?:less|more) (?!likely|x{3})[a-z]+(?= today|$|,|;)|pre-?existing|"
    r"the same(?= as| in|$|,|;)|"
    r"no (?:\w+ )?changes? (?:in|to)|(?:no|new) (?:development|recurrence|appearance) of|"
    r"been (?:advanced|pulled back|repositioned|retracted|exchanged|withdrawn)|(?:as|than|from) before)\b",
    re.I,
)
SIGNAL = re.compile(
    rf"{RESIDUAL.pattern}|\b(?:increased|decreased|reduced|removed|removal|cleared|clearing|extubat\w+|grown|"
    rf"diminished|prominent than|replaced|re-?expan\w+|disappeared|shows? partial|"
    r"(?:was|were) (?:also |already )?(?:present|seen|noted|visible) (?:on|in) (?:19|20)\d\d)\b",
    re.I,
)
NOT_RESIDUAL = re.compile(
    r"\bmay progress|stable (?:patient|condition)|(?:chest wall|sternum|alignment|fixation) is stable|"
    r"interval between|"
    r"(?:larger|smaller|more|less|greater) than (?:expected|usual|normal|typical|average)|"
    r"(?:ensure|document|confirm|assess|establish|until|for) (?:\w+ )?resolution|"
    r"in no way|degenerative changes?|chang(?:e|es) (?:of|"
    r"in) the (?:\w+ )?(?:spine|shoulder)|"
    r"(?:degenerative|chronic|interstitial|fibrotic|emphysematous|postoperative|post[- ]?surgical|surgical|"
    r"bony|arthritic|atherosclerotic|atelectatic|"
    r"hypertrophic|osteoarthritic|cystic|inflammatory|scarring|parenchymal|pleural|granulomatous|"
    r"fibrocystic|bronchitic|senescent|hyperinflat\w+|"
    r"spondylotic|spondylitic|lung|disc|disk|copd|osseous|spinal|skeletal|age[- ]related|productive|"
    r"calcific|infectious) (?:\w+ )?changes?|"
    r"changes? (?:are |is )?(?:of|consistent with|compatible with|related to|suggesting|suggestive|"
    r"throughout|within|at|involving|seen|noted|present|identified)|"
    r"rather than|other than|less than|more than|greater than|larger than \d|smaller than \d|better seen|"
    r"(?:worse|more|greater|less|larger|smaller|increased) (?:\w+ )?(?:on|at|in) the (?:left|right|bases?)|"
    r"\b(?:left|right|bases?|apex|side|sided|lungs?|lobes?)(?:-sided)? (?:is |are )?(?:worse|larger|"
    r"smaller|more|less|greater) than"
    r"(?: the| on the| at the)? \w+|\b(?:right|left) than (?:the )?(?:right|left)|"
    r"more on (?:the )?(?:right|left)[ -]than|"
    r"(?:compared|in comparison|relative|in contrast) (?:to|with) the (?:\w+ )?(?:left|right|contralateral|"
    r"opposite|other|remainder|rest|adjacent|surrounding)\b|"
    r"(?:better (?:aerat|expand|inflat)\w+ )?\bthan (?:(?:that|those) )?(?:(?:on|in|at|of) )?the "
    r"(?:left|right|other|contralateral|opposite)\b|"
    r"\bincreased? in (?:ap|transverse|density)",
    re.I,
)
