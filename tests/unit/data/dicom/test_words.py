import pytest

from clotline.data.dicom.words import (
    LOCALIZER,
    MAP,
    MONOENERGETIC,
    PROJECTION,
    RENDERING,
    SCAN,
    TRACKING,
    UNENHANCED,
    describes_agent,
    goes_by_mouth,
    is_sharp,
    picture_type,
    says_agent,
    shows_chest,
)

NONE = [
    *(
        "NONE",
        "no",
        " Native ",
        "W/O",
        "NON-CONTRAST",
        "w/o contrast",
        "None given",
        "-",
        "0",
        "N/A",
    ),
    *("NO IV", "unenhanced", "kein KM", "NONCONTRAST", "NON_CONTRAST", "NO_CONTRAST", "W/OUT"),
    *(
        "PLAIN",
        "GEEN",
        "UTAN",
        "INGEN",
        "YOK",
        "BEZ",
        "N.A.",
        "NATIV",
        "C-",
        "NIL",
        "FALSE",
        "NO\0",
    ),
    *("NINGUNO", "AUCUN", "0 ml", "0.0 ml", "ORAL", "sin contraste", "SENZA MDC", "NONE/NONE"),
    *(
        "S/C",
        "s/ contraste",
        "blanco",
        "KONTRASTSIZ",
        "water",
        "NC",
        "N/C",
        "PRE CONTRAST",
        "Tidak",
    ),
    *("Χωρίς σκιαγραφικό", "بدون", "胸部平扫", "NaCl", "non injecté", "без контраста"),
    *("Oral Omnipaque", "PO Iohexol 350", "No IV, oral Iohexol", "Gastrografin"),
]
AGENTS = [
    *("Non-ionic contrast", "NONIONIC", "Na diatrizoate", "Nativist", "Iopamidol 370", "IV", "Y"),
    *("NO ORAL & 80 OMNI350", "NO ORAL/ISOVUE 370", "N Iomeron 400", "None oral, Iohexol iv", "CE"),
    *("0.5 ml/s", "80 ml", "APPLIED", "Omnipaque,none oral", "IV & ORAL", "Ultravist 370", "1"),
]


@pytest.mark.parametrize("text", NONE)
def test_a_word_for_no_agent_is_none(text):
    assert says_agent(text) is False


@pytest.mark.parametrize("text", AGENTS)
def test_the_name_of_an_agent_is_one_whatever_is_said_of_another_way(text):
    assert says_agent(text) is True


@pytest.mark.parametrize("text", ["", "UNKNOWN", "UNDEFINED", "unspecified", "REMOVED"])
def test_a_word_that_says_nothing_is_neither(text):
    assert says_agent(text) is None


@pytest.mark.parametrize(("route", "elsewhere"), [("ORAL", True), ("IV", False), ("", False)])
def test_a_route_by_mouth_leads_into_no_vessel(route, elsewhere):
    assert goes_by_mouth(route) is elsewhere


@pytest.mark.parametrize(
    ("values", "picture"),
    [
        (("ORIGINAL", "PRIMARY", "AXIAL"), SCAN),
        (("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"), SCAN),
        (("DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MPR"), SCAN),
        (("DERIVED", "SECONDARY", "PROJECTION IMAGE", "CSA MIP", "CSAPARALLEL"), PROJECTION),
        (("DERIVED", "PRIMARY", "VOLUME", "MAX_IP"), PROJECTION),
        (("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"), PROJECTION),
        (("DERIVED", "PRIMARY", "VOLUME", "MEAN"), PROJECTION),
        (("DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MIP"), PROJECTION),
        (("DERIVED", "PRIMARY", "AXIAL", "VMI"), MONOENERGETIC),
        (("DERIVED", "SECONDARY", "AXIAL", "MAT_REMOVED"), UNENHANCED),
        (("DERIVED", "SECONDARY", "AXIAL", "MAT_SPECIFIC", "IODINE"), MAP),
        (("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 MON"), TRACKING),
        (("ORIGINAL", "PRIMARY", "LOCALIZER"), LOCALIZER),
        (("DERIVED", "SECONDARY", "OTHER", "VRT"), RENDERING),
        (("DERIVED", "SECONDARY", "REFORMATTED", "MAX IP"), PROJECTION),
        (("DERIVED", "SECONDARY", "PROCESSED", "MIP_THICK"), PROJECTION),
        (("DERIVED", "PRIMARY", "AXIAL", "CT_SOM7 MIP VB10A"), PROJECTION),
        (("DERIVED", "SECONDARY", "MPR", "CSA MPR THICK"), PROJECTION),
        (("DERIVED", "SECONDARY", "AXIAL", "MONOE_70KEV"), MONOENERGETIC),
        (("DERIVED", "SECONDARY", "AXIAL", "VMI40"), MONOENERGETIC),
        (("DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 SPI", "IODINE_MAP"), MAP),
        (("DERIVED", "PRIMARY", "LUNG_PBV"), MAP),
        (("DERIVED", "SECONDARY", "AXIAL", "VNC_IMAGE"), UNENHANCED),
        (("DERIVED", "SECONDARY", "SCREEN SAVE"), RENDERING),
        (("DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 SPI", "DUAL", "M_0.6"), SCAN),
        (("ORIGINAL", "PRIMARY", "AXIAL", "DET_DD000"), SCAN),
    ],
)
def test_types_of_picture_are_known_by_the_makers_words(values, picture):
    assert picture_type(values, "") == picture


@pytest.mark.parametrize(
    ("description", "picture"),
    [
        ("CTPA 1.0 B30f", SCAN),
        ("PE bolus tracked 1.25mm", SCAN),
        ("Iodine(Water)", MAP),
        ("DE_Lung PBV", MAP),
        ("Water(Iodine)", UNENHANCED),
        ("VNC 1.0", UNENHANCED),
        ("Virtual unenhanced", UNENHANCED),
        ("Monoenergetic Plus 50 keV", MONOENERGETIC),
        ("70keV", MONOENERGETIC),
        ("CTA thorax MIP 8mm", PROJECTION),
    ],
)
def test_types_of_picture_are_known_by_their_description(description, picture):
    assert picture_type(("ORIGINAL", "PRIMARY", "AXIAL"), description) == picture


@pytest.mark.parametrize(
    ("descriptions", "picture"),
    [
        ("Thorax TNC;Mono-phase;CT Average dose;Perfusionsstörung;Mediastinum;PE thins", SCAN),
        ("Lung vessels 1.0;DE_A 80kV;Nativ 5.0;HAP 3.0", SCAN),
        ("Thorax iodé;Thorax_iodé 1mm;PDC iodé;contraste iode;EP avec injection d'iode;"
         "angioscanner iodée;Chest with iodine;Thorax iode\u0301;PE iodine contrast 1.0", SCAN),
        ("sMIP;axMIP;MIPS;MinIP 10;Max IP;"
         "Intensité maximale;Proyección axial;AVE 5mm;Mean 3mm;AIP 8",
         PROJECTION),
        ("Coupes moyennées;Mittelwert 5mm;Promedio;RaySum;MPVR;MIPcor", PROJECTION),
        ("Iodkarte;Jod-Bild;Carte d'iode;Carte d'iode avec;DE_Iode;Iodine;Mappa iodio;"
         "Mapa de yodo;йодная карта;碘图;ヨードマップ", MAP),
        ("Perfused Blood Volume;DE PulmoPerf;Z Effective;"
         "CaSupp 25;VNCa;IodineNoWater;Subtraction lung",
         MAP),
        ("Virtuelle Nativserie;sans contraste virtuel;"
         "virtual sin contraste;VUE;虚拟平扫", UNENHANCED),
        ("MonoPlus 50;MEI 40;Monochromatic 60;"
         "keV 40;Virtual mono 40;monoénergétique", MONOENERGETIC),
    ],
)  # fmt: skip
def test_types_of_picture_are_known_in_many_languages(descriptions, picture):
    for description in descriptions.split(";"):
        assert picture_type(("ORIGINAL", "PRIMARY", "AXIAL"), description) == picture, description


@pytest.mark.parametrize(
    ("descriptions", "agent"),
    [
        ("NCCT;torace basale;Blanco thorax;Thorax -C;"
         "pre contrast;PRECON;Thorax non injecté;Thorax NC",
         False),
        ("Scan before contrast;avant injection;tórax s/c;KONTRASTSIZ;natief;Lung screening", False),
        ("Thorax injecté;torace con mdc;КУ;КТ-ангио;"
         "CTPA肺动脉;zatorowość;TEPA;Chest with;pulmonalis",
         True),
    ],
)  # fmt: skip
def test_descriptions_tell_contrast_agent_in_many_languages(descriptions, agent):
    for description in descriptions.split(";"):
        assert describes_agent(description) is agent, description


@pytest.mark.parametrize(
    ("parts", "chest"),
    [
        ("ОГК;THX;COEUR;TEP;Θώρακας;keuhkot;embolia pulmonar;胸部", True),
        ("troncs supra-aortiques;collo;Bauch;foie;Rachis;голова;"
         "шея;живот;brzuch;koponya;頭部;腹部;crâne",
         False),
    ],
)  # fmt: skip
def test_body_parts_are_known_in_many_languages(parts, chest):
    for part in parts.split(";"):
        assert shows_chest(part, "") is chest, part
        assert shows_chest("", part) is chest, part


@pytest.mark.parametrize(
    ("description", "agent", "chest"),
    [
        ("CTPA 1.0", True, True),
        ("Native chest 1.0", False, True),
        ("Thorax nativ", False, True),
        ("CT CHEST W/O", False, True),
        ("CHEST C+ 1.25mm", True, True),
        ("Chest w/ contrast", True, True),
        ("CTA carotids", True, False),
        ("Abdomen venous", True, False),
        ("Lungenembolie", True, True),
        ("1.25mm", None, None),
    ],
)
def test_descriptions_tell_contrast_agent_and_body_part(description, agent, chest):
    assert describes_agent(description) is agent
    assert shows_chest("", description) is chest


@pytest.mark.parametrize("part", ["CHEST", "THORAX", "Tórax", "LUNG", "CHEST_ABDOMEN"])
def test_the_chest_has_many_names(part):
    assert shows_chest(part, "") is True


@pytest.mark.parametrize(
    ("kernel", "sharp"),
    [
        *[
            (name, False)
            for name in ("B30f", "Br40d", "D40s", "I30f", "FC08", "STANDARD", "B", "YA")
        ],
        *[(name, True) for name in ("B70f", "Bl57", "FC52", "LUNG", "BONEPLUS", "L")],
        ("", None),
    ],
)
def test_kernels_are_soft_or_sharp_by_the_makers_names(kernel, sharp):
    assert is_sharp(kernel, "") is sharp


def test_a_description_tells_a_kernel_where_the_kernel_does_not():
    assert is_sharp("", "Lung 1.0 B70f") is True
    assert is_sharp("", "Thorax Lunge 3.0") is True
    assert is_sharp("", "Lung embolism") is None
    assert is_sharp("B30f", "Lung") is False
