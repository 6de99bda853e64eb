"""Countries and regions: every ISO 3166-1 country has the region that M49 gives it, nothing else has one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.geography import REGION_OF_COUNTRY, REGIONS, geo_tier, located, region_of
from app.domain.model import GeoInfo

# A second copy, from ISO 3166-1 in alphabetical order, so that a code dropped from the table shows.
ISO_3166_1 = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV
    BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES
    ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE
    IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY
    MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU
    NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM
    SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE
    VG VI VN VU WF WS YE YT ZA ZM ZW
""".split()


def test_every_iso_country_but_antarctica_has_a_region() -> None:
    assert len(ISO_3166_1) == 249
    assert set(REGION_OF_COUNTRY) == set(ISO_3166_1) - {"AQ"} | {"XK"}


def test_every_region_is_used_and_no_other() -> None:
    assert sorted(REGIONS) == ["af", "ap", "eu", "me", "oc", "sa", "us"]
    assert set(REGION_OF_COUNTRY.values()) == set(REGIONS)


def test_no_country_is_listed_twice() -> None:
    # How many countries each region has in M49. A code listed in two regions would be missing from one.
    sizes = {region: list(REGION_OF_COUNTRY.values()).count(region) for region in REGIONS}
    assert sizes == {"sa": 16, "us": 41, "eu": 52, "ap": 33, "af": 60, "me": 18, "oc": 29}


@pytest.mark.parametrize(
    ("region", "countries"),
    [
        ("sa", "BR AR GF FK GS BV"),
        ("us", "US CA MX PA GL BM PM CU PR TT"),
        ("eu", "FR GB RU UA IS SJ MT VA XK"),
        ("ap", "JP IN IR AF PK KZ SG TW TL"),
        ("af", "EG SD ZA NG RE SH IO TF"),
        ("me", "AE IL TR CY GE AM AZ YE"),
        ("oc", "AU NZ FJ GU PF UM HM CX"),
    ],
)
def test_the_decisions_beside_the_table(region: str, countries: str) -> None:
    assert {country: region_of(country) for country in countries.split()} == dict.fromkeys(countries.split(), region)


@pytest.mark.parametrize("unknown", [None, "", "None", "none", "AQ", "ZZ", "EU", "UK", "BRA", " BR", "076", "ﬁ", "ß"])
def test_an_unknown_country_has_no_region(unknown: str | None) -> None:
    assert region_of(unknown) is None


@pytest.mark.parametrize("country", ["br", "Br", "bR", "BR"])
def test_case_does_not_matter(country: str) -> None:
    assert region_of(country) == "sa"


@given(st.text(max_size=4))
def test_any_text_is_a_known_country_or_none(text: str) -> None:
    is_known = text in REGION_OF_COUNTRY or (text.isascii() and text.upper() in REGION_OF_COUNTRY)
    assert (region_of(text) is not None) == is_known


@pytest.mark.parametrize(
    ("backend", "client", "pop", "tier"),
    [
        (("BR", "sa"), GeoInfo("BR", "sa"), "sa", 0),
        (("BR", "sa"), GeoInfo("BR", "sa"), None, 0),
        (("BR", None), GeoInfo("BR", "sa"), "eu", 0),
        (("BR", "eu"), GeoInfo("BR", "sa"), "ap", 0),  # the country decides before any region
        (("AR", "sa"), GeoInfo("BR", "sa"), "sa", 1),
        ((None, "sa"), GeoInfo("BR", "sa"), "eu", 1),
        (("FR", "eu"), GeoInfo("BR", "sa"), "eu", 2),
        ((None, "eu"), GeoInfo("BR", "sa"), "eu", 2),
        (("JP", "ap"), GeoInfo("BR", "sa"), "eu", 3),
        ((None, None), GeoInfo("BR", "sa"), "eu", 3),
        # without a location of the client only tiers 2 and 3 apply, and nothing is not the same as nothing
        (("FR", "eu"), None, "eu", 2),
        (("FR", "eu"), None, "sa", 3),
        (("FR", "eu"), GeoInfo(None, None), "eu", 2),
        ((None, None), GeoInfo(None, None), None, 3),
        ((None, None), None, None, 3),
        (("AQ", None), GeoInfo("AQ", None), None, 0),
    ],
)
def test_the_tier_of_a_backend(
    backend: tuple[str | None, str | None], client: GeoInfo | None, pop: str | None, tier: int
) -> None:
    assert geo_tier(*backend, client, pop) == tier


@pytest.mark.parametrize(
    ("country", "continent", "place"),
    [
        ("BR", "SA", GeoInfo("BR", "sa")),
        ("br", None, GeoInfo("BR", "sa")),
        ("AQ", "AN", GeoInfo("AQ", None)),
        ("XK", "EU", GeoInfo("XK", "eu")),
        (None, "EU", GeoInfo(None, "eu")),
        ("EU", "EU", GeoInfo(None, "eu")),
        ("XX", None, None),
        ("12", "XX", None),
        ("", None, None),
        (None, None, None),
        (7, 7, None),
        ("\N{LATIN SMALL LIGATURE FI}", None, None),
    ],
)
def test_a_record_locates_by_a_known_country_or_else_by_its_continent(country, continent, place):
    assert located(country, continent) == place
