"""What the words of a header say of a scan: its type, contrast agent, body part and kernel.

Scanners, archives and people write them in many languages and spellings. Terms are those of DICOM
PS3.3, C.8.2.1 (CT Image) and C.8.15.2 (Enhanced CT), and of the makers' conformance statements.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

#: Types of picture, from what is wanted most to what is taken last.
SCAN = "scan"
MONOENERGETIC = "virtual monoenergetic images"
PROJECTION = "a projection or average of several slices"
#: Types that no model can read: their values are no attenuation at the time of the scan.
MAP = "a map of a dual-energy or perfusion scan"
UNENHANCED = "virtual non-contrast images"
TRACKING = "bolus tracking"
LOCALIZER = "a localizer"
RENDERING = "a rendering or capture of a screen"

_TYPES_BY_VALUE = {
    LOCALIZER: "LOCALIZER SCOUT TOPO TOPOGRAM SCANOGRAM SURVIEW",
    TRACKING: "MON PREMON MONITORING PREMONITORING TRACKER BOLUS SMARTPREP TESTBOLUS LOCATOR "
    "SURESTART",
    MAP: "MAT_SPECIFIC MAT_FRACTIONAL MAT_VALUE_BASED EFF_ATOMIC_NUM ELECTRON_DENSITY Z_EFF ZEFF "
    "IODINE JOD PBV PERFUSION CBF CBV MTT TTP TMAX TMIP HU_MOD SUBTRACTION DIVISION MULTIPLICATION "
    "STD_DEVIATION",
    UNENHANCED: "MAT_REMOVED VNC VUE",
    RENDERING: "VRT SSD RENDERING VOLREN SCREENSAVE SCREEN_SAVE REPORT DOSE_INFO VOLUME_RENDER "
    "SURFACE_RENDER CURVED_MPR",
    PROJECTION: "MIP MINIP MNIP MAX_IP MIN_IP MAXIP AVERAGE AVG MEAN AVE_IP AVG_IP AVIP MEAN_IP "
    "MEDIAN PROJECTION SUM MAXIMUM MINIMUM ADDITION THICK",
    MONOENERGETIC: "VMI MONO MONOENERGETIC MONO_E MONOE MONO+",
}
_TYPE_OF_WORD = {
    word: name for name, words in reversed(_TYPES_BY_VALUE.items()) for word in words.split()
}

#: In descriptions, which people write: only what can mean nothing else.
_TYPES_BY_DESCRIPTION = (
    (
        UNENHANCED,
        r"\b(VNC|VUE|VUI)\b|IODINE REMOVED|WATER ?\(IODINE\)|ВИРТУАЛЬН|虚拟|仮想"
        r"|\bVIRTU(AL|EL)\w*\b(?!.*(MONO|KEV|CALC|KALZ|BRONC|COLON|ENDOSC))",
    ),
    (
        MAP,
        r"\b(IODINE|IODE|IODIO|IODIUM|IOD|JODIUM|JOD|JOOD|YODO)"
        r"(?! REMOVED)((\w|-)*(KART|KAART|BILD|MAP|DENS|NOWATER)\w*|\b)|ИОД|碘|ヨート"
        r"|PBV\b|PERFUSED BLOOD|PERFUS(?!IONSST)|PERFUZ|PULMOPERF|灌注|灌流"
        r"|EFFECTIVE (Z|ATOM)|\bZ[ _-]?EFF|ELECTRON DENSITY|\bMD \w+|HAP WATER|\bRHO[/ _-]?Z\b"
        r"|\bCBF\b|\bCBV\b|\bMTT\b|URIC ACID|\bCA(LCIUM)? ?SUPP|\bVNCA\b|NON[ _-]?CALCIUM"
        r"|CONTRAST[ _-]ENHANCED STRUCT|XENON|KRYPTON|SUBTRA[CK]T|SOUSTRACT|SUSTRACC|SOTTRAZ",
    ),
    (
        MONOENERGETIC,
        r"\d+ ?KEV\b|\bKEV\b|MONO ?-?_?ENERG|MONO-?CHROM|MONOCROM|\bMONO ?(E|\+|PLUS)"
        r"|\bMONO ?\d+|^MONO$|\bVMI\b|\bMEI\b",
    ),
    (
        PROJECTION,
        r"MIPS?\d*\b|\bMIP|\bM(AX|IN|N)[ _-]?IP\d*\b|MAX(IMUM)? ?INT|MIN(IMUM)? ?INT|MAXIMALE INT"
        r"|\bINTENSI\w+ M[AI][XSN]|PRO[JY]E[CK][TC]|PROIEZION|PROJECAO|\bAV(ERAGE|G|E)\b(?! DOSE)"
        r"|\bAV[GE]?[ _-]?IP\b|\bAIP\b|\bMEAN\b|\bMOYENN|MITTELW|PROMEDIO|\bRA(Y|YO) ?SUM|\bMPVR\b"
        r"|SLAB",
    ),
    (
        TRACKING,
        r"(PRE)?MONITORING|BOLUS ?TRACK|TEST ?BOLUS|TIMING ?BOLUS|SMART ?PREP|SURE ?START"
        r"|CARE ?BOLUS|\bLOCATOR\b|\bTRACKER\b",
    ),
    (RENDERING, r"\bVRT\b|\bSSD\b|VOLUME RENDER|\bVR 3D\b|\b3D VR\b|SCREEN ?SAVE|DOSE REPORT"),
    (LOCALIZER, r"TOPOGRAM|\bTOPO\b|SCOUT|SURVIEW|SCANOGRAM|LOCALI[SZ]ER"),
)

#: Iodine of a contrast agent, not of a map: with the accent the French word is iodinated alone.
_IODINATED = re.compile(r"\bIODÉE?S?\b")
_IODINE_AGENT = re.compile(
    r"\b(CONTRASTE?|PDC|PRODUIT|INJ\w*|WITH|W/|AVEC) ?(D'|DE )?IOD(EE?S?|INE)\b"
    r"|\bIODINE CONTRAST\w*"
)


def plain(text: object) -> str:
    """A text in capitals without accents, NULs and surplus spaces, as it is compared."""
    text = unicodedata.normalize("NFKD", str(text or "").replace("\0", " "))
    text = "".join(c for c in text if not unicodedata.combining(c))
    return " ".join(text.replace("ß", "ss").upper().split())


@lru_cache(4096)
def picture_type(image_type: tuple[str, ...], description: str) -> str:
    """What sort of picture a file is, one of the types above.

    Args:
        image_type: values of ImageType.
        description: SeriesDescription.
    """
    types = set()
    for value in map(plain, image_type):
        # A maker's value has words of its own: CSA MIP, CT_SOM5 MON, MIP_THIN, MAX IP, MONO_40.
        words = [word.rstrip("0123456789") or word for word in re.split(r"[ _]", value)]
        pairs = ["_".join(pair) for pair in pairwise(words)]
        types |= {_TYPE_OF_WORD[w] for w in (value, *words, *pairs) if w in _TYPE_OF_WORD}
    text = unicodedata.normalize("NFC", description.replace("_", " ")).upper()
    text = _IODINE_AGENT.sub(" ", plain(_IODINATED.sub(" ", text)))
    # Of bolus tracking a description may tell that is one of the scan itself: the number of
    # positions decides.
    types |= {
        name
        for name, pattern in _TYPES_BY_DESCRIPTION
        if name not in (TRACKING, LOCALIZER) and re.search(pattern, text)
    }
    order = (LOCALIZER, TRACKING, UNENHANCED, MAP, RENDERING, PROJECTION, MONOENERGETIC)
    return next((name for name in order if name in types), SCAN)


@lru_cache(4096)
def tells_tracking(description: str) -> bool:
    """Whether a description is one of bolus tracking, or of a localizer."""
    text = plain(description).replace("_", " ")
    return any(
        re.search(pattern, text)
        for name, pattern in _TYPES_BY_DESCRIPTION
        if name in (TRACKING, LOCALIZER)
    )


#: Agents that go into a vessel, and how their strength is written (mg of iodine a ml).
_AGENT = re.compile(
    r"\bIO(PAM|MER|MEPR|HEX|DIX|VERS|PROM|BITR|XAG|XIT|XIL|PENT)\w*|\bOMNI\w*|ISOVUE|ULTRAVIST"
    r"|VISIPAQUE|OPTIRAY|OPTI ?\d+|OXILAN|XENETIX|HEXABRIX|IMERON|SOLUTRAST|ACCUPAQUE|CONRAY|NIOPAM"
    r"|SCANLUX|IOPASCAN|IOMERON|\bULTRA ?\d+|\bISO ?\d{3}|\b(2[4-9]0|3[0257]0|400) ?MG"
)
_BY_MOUTH = re.compile(
    r"\b(ORAL\w*|P\.?O\.?|PER OS|RECTAL\w*|BARIUM|GASTRO\w*|TELEBRIX GASTRO|ENEMA)\b"
)
_IN_VESSEL = re.compile(r"\b(I\.?V\.?|INTRAVEN\w*|VENOUS|VENOS\w*|EV)\b")
#: Words for none in the languages whose hospitals publish: the first of a clause decides.
_NONE = re.compile(
    r"[\W0_]*|[\W_]*(?:N|NA|NC|NCCT|NIL|NIHIL|NULL|NATIV\w{0,2}|NATIE?F|NATUREL|FALSE|PLAIN|BASALE?"
    r"|BLAN[CK]O?|DIRECTO|VUOTO|SC|PRE|WATER|WASSER|AIR|NACL|SALINE|C ?-)[\W_]*"
    r"|(?:NO|NON(?![\W_]*IONIC)|NONE|NOT|WITHOUT|W/?O(?:UT)?|OHNE|KEINE?S?|SANS|SIN|SENZA|SEM|NINGUN[OA]"
    r"|NINGUEM|NENHUM\w*|AUCUNE?|PAS|NESSUN[OA]?|GEEN|ZONDER|UTAN|UDEN|UTEN|INGEN|INGET|INTET|YOK"
    r"|BEZ|BRAK|ZADN\w+|NEM|NELKUL|FARA|ILMAN|EI|NASHI|TANPA|TIDAK|KHONG|NON-?CON\w*"
    r"|UNENHANCED|NE|ΧΩΡΙΣ|ללא|بدون)(?:[\W_].*)?|PRE[\W_]*CON\w*|KONTRASTSIZ"
    r"|NON?[\W_]*(?:CON|CE|CM|ENH|KONTRAST)\w*.*|UNENH\w*.*|CONTRAST(?:O|E)?[\W_]*(?:NO|NONE|FALSE|-)"
    r"|БЕЗ.*|НЕТ.*|无|無|なし|ナシ|.*平扫|.*単純|X"
)
_UNKNOWN = re.compile(
    r"[\W_]*|(?:UNKNOWN|UNDEFINED|UNSPECIFIED|NOT (?:SPECIFIED|STATED|KNOWN|AVAILABLE|APPLICABLE)"
    r"|INCONNU|UNBEKANNT|DESCONOCIDO|N/?A|N\.A\.?|N/?S|SEE .*|OTHER|ANONYM\w*|REMOVED"
    r"|DEIDENT\w*|XX+)[\W_]*"
)
_AMOUNT = re.compile(r"([\d.,]+) ?(?:ML|CC)\b")


@lru_cache(4096)
def says_agent(text: str) -> bool | None:
    """What ContrastBolusAgent, or the meaning of its code, says.

    Returns:
        True for an agent that goes into a vessel, False where a word says that there was none,
        None where it says neither.
    """
    text = plain(text)
    if _UNKNOWN.fullmatch(text):
        return False if re.fullmatch(r"N/?\.?A\.?|-+", text) else None
    # These have slashes of their own.
    text = re.sub(r"\bW/O(UT)?\b|\b[NS]/ ?C(ON\w*)?\b", "WITHOUT", text)
    said = []
    for clause in re.split(r"[,;&+]|(?<!\d)/|\bAND\b|\bUND\b|\bET\b", text):
        clause = clause.strip()
        amounts = [float(n.replace(",", ".").strip(".") or 0) for n in _AMOUNT.findall(clause)]
        if not clause or _UNKNOWN.fullmatch(clause):
            continue
        by_mouth = _BY_MOUTH.search(re.sub(r"\bNO\w* ORAL\b", "", clause))
        elsewhere = by_mouth and not _IN_VESSEL.search(clause)
        if _AGENT.search(clause):
            said.append(not elsewhere)
            continue
        nothing = _NONE.fullmatch(clause) or (amounts and not any(amounts))
        said.append(not (elsewhere or nothing))
    return any(said) if said else None


def goes_by_mouth(route: str) -> bool:
    """Whether ContrastBolusRoute is one that leads into no vessel."""
    text = plain(route)
    return bool(_BY_MOUTH.search(text)) and not _IN_VESSEL.search(text)


#: Of descriptions, where a word may stand anywhere.
_DESCRIBES_NONE = re.compile(
    r"\bNAT(IV\w{0,2}|IE?F|UR\w*)?\b|\bNON[ _-]?(CON\w*|CE|ENH\w*|INJ\w*)|\bNO[ _-]?CON\w*|UNENH\w*"
    r"|\bT?NC(CT)?\b|\bPRE[ _-]?CON\w*|\b(BEFORE|ANTE|AVANT) (CON|INJ|IV)|KONTRASTSIZ|\bS/ ?C\b"
    r"|\bW/?O(UT)?\b|\bWITHOUT\b|\bC ?-(?=$|\W)|(?<!\w)-C\b|\b(OHNE|KEIN|SANS|SIN|SENZA|SEM|ZONDER"
    r"|UTAN|UDEN|UTEN|BEZ|BASALE?|BLANCO|PLAIN|SIMPLE)\b|\bLOW ?-?DOSE\b|\bLDCT\b"
    r"|CA(LCIUM)?[ -]?SCOR|SCREENING|БЕЗ|平扫|単純"
)
_DESCRIBES_AGENT = re.compile(
    r"(?<![A-Z])CTP?A(?![A-Z])|ANGIO\w*|АНГИО|EMBOL\w*|ZATOR\w*|\bPE\b|\bLAE\b|\bT?EPA?\b"
    r"|\bPULM\w* ART|PULMONALIS|肺动脉|肺動脈|\bC ?\+|\+ ?C\b|\bCE(CT)?\b|INJECT\w*|\bMDC\b"
    r"|\bWITH( IV| CON|$)|\bW/? ?(IV|CON)\w*|\bKM\b|\bKONTRAST\w*|\bCONTRAST\w*|\bIV\b"
    r"|\bART(ERIAL\w*|ERIELL)?\b"
    r"|\bVEN(OUS|OS|EUX)?\b|\bPORTAL\b|КОНТРАСТ|\bКУ\b|造影|增强"
)


@lru_cache(4096)
def describes_agent(description: str) -> bool | None:
    """What a series' description says of contrast agent: True, False, or None for nothing."""
    text = plain(description).replace("_", " ")
    if _DESCRIBES_NONE.search(text):
        return False
    return True if _DESCRIBES_AGENT.search(text) else None


_CHEST = re.compile(
    r"CHEST|THORA\w*|TORA[CKX]\w*|TORACE|LUNG\w*|PULM\w*|POLMON\w*|POUMON\w*|PECHO|PEITO|PETTO|POITRINE"
    r"|BRUST\w*|BORST\w*|BROST\w*|KLATKA|HRUDN\w*|GOGUS|AKCIGER|MELLKAS|\bCTPA\b|EMBOL\w*|\bPE\b|\bLAE\b"
    r"|\bTAP\b|\bCAP\b|WHOLE ?BODY|MEDIAST\w*|HEART|CARDI\w*|CORONAR\w*|HERZ|COEUR|CUORE|CORAZON"
    r"|AORTA|\bT?EPA?\b|\bTHX\b|KEUHK\w*|\bNGUC\b|\bRIBS?\b|\bTORSO\b|ГРУД|ОГК|ΘΩΡΑΚ|חזה|صدر|胸|肺"
)
_OTHER = re.compile(
    r"NECK|HALS|CAROTI\w*|KAROTI\w*|CERVI\w*|\bCOL\b|CUELLO|COU\b|HEAD|SKULL|BRAIN|CEREBR\w*|KOPF\w*"
    r"|SCHAEDEL|SCHADEL|CRANE|CRANI\w*|CABEZA|CRANEO|TESTA|HOOFD|ORBIT\w*|SINUS\w*|NNH|TEMPORAL|FACE"
    r"|DENTAL|ABD\w*|PELVI\w*|BECKEN|BASSIN|BUIK|LIVER|LEBER|KIDNEY|RENAL|LEG\b|EXTREM\w*|KNEE|ANKLE"
    r"|FOOT|HIP\b|SHOULDER|ELBOW|WRIST|HAND\b|SPINE\w*|LUMBAR|[LCT]SPINE|[LHB]WS|UROGR\w*|COLON\w*"
    r"|TETE\b|TRONCS|\bTSA\b|COLLO\b|PESCOCO|BAUCH|VENTRE|ADDOME|FOIE\b|RACHIS|WIRBEL\w*|CTV\b"
    r"|VENOGR\w*|RUN ?-?OFF|SKALLE|HLAVA|\bKRK\b|BRICH\w*|G[LŁ]OWA|SZYJA|BRZUCH\w*|NYAK\b"
    r"|KOPONYA|KARIN\b|BOYUN|\bKAFA\b|VATSA|ГОЛОВ|МОЗГ|ШЕЯ|ШЕИ|ЖИВОТ|БРЮШ|頭|頸|腹|头|颈"
)


@lru_cache(4096)
def shows_chest(body_part: str, description: str) -> bool | None:
    """Whether a scan is of the chest by BodyPartExamined and description; None: they do not say."""
    for text in (plain(description).replace("_", " "), plain(body_part).replace("_", " ")):
        if _CHEST.search(text):
            return True
        if _OTHER.search(text):
            return False
    return None


_SHARP_WORDS = re.compile(
    r"\b(LUNG\w*|BONE\w*|EDGE|SHARP|HRCT|HIGH ?RES\w*|SCHARF|KNOCHEN|POUMON|HUESO|OS|DUR|HARD)\b"
)
_SOFT_WORDS = re.compile(
    r"\b(SOFT\w*|STANDARD|STND|SMOOTH|MEDIAST\w*|WEICH\w*|TISSUE|MOU|BLANDO|MORBIDO)\b"
)


@lru_cache(4096)
def is_sharp(kernel: str, description: str) -> bool | None:
    """Whether a reconstruction is sharp, as for lung or bone; None where nothing says.

    Args:
        kernel: ConvolutionKernel, in words (GE), letters (Philips) or codes (Siemens: B30f, Br40d;
            Canon: FC08), whose number rises with the sharpness, or names a group.
        description: SeriesDescription, which counts where the kernel says nothing.
    """
    kernel = plain(kernel).replace("_", " ")
    if _SHARP_WORDS.search(kernel):
        return True
    if _SOFT_WORDS.search(kernel):
        return False
    if canon := re.match(r"FC ?(\d{2})", kernel):
        return 30 <= int(canon[1]) < 60 or int(canon[1]) >= 80
    if siemens := re.match(r"[A-Z]{1,2}(\d{2})[A-Z]*\b", kernel):
        return int(siemens[1]) >= 50
    if re.fullmatch(r"Y?[AB]|C|X?C[AB]", kernel):
        return False
    if re.fullmatch(r"Y?[CDEFL]|YD", kernel):
        return True
    if kernel:
        return None
    text = plain(description).replace("_", " ")
    code = re.search(r"\b[BIDHBQ][LRVFM]?(\d{2})[FSHD]?\b", text)
    if code:
        return int(code[1]) >= 50
    if _SOFT_WORDS.search(text):
        return False
    return (bool(_SHARP_WORDS.search(text)) and not _DESCRIBES_AGENT.search(text)) or None


def plain_patient_id(text: str) -> str:
    """A patient's identifier as it is compared with others.

    Spaces and zeros pad it, and some systems write it in other cases.
    """
    return text.replace("\0", " ").strip().upper()
