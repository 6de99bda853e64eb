"""Maps countries (ISO 3166-1 alpha-2 codes) to the seven regions of the edge.

The source is the United Nations' M49 standard (unstats.un.org/unsd/methodology/m49): each line of the table
is one M49 sub-region, and each sub-region belongs to exactly one of our regions.
"""

from collections.abc import Mapping
from typing import Final

from app.domain.model import GeoInfo

# M49 decides every case, even against common usage, so that the table can be checked against its source:
# - Egypt and Sudan are Northern Africa (af). Iran, like Afghanistan and Pakistan, is Southern Asia (ap).
# - Cyprus, Turkey, Georgia, Armenia and Azerbaijan are Western Asia (me), Russia is Eastern Europe (eu).
# - The Americas split between sa, South America, and us, the rest: Mexico and Panama are us.
# - Outlying territories follow M49, not their sovereign: BV and GS are sa, IO and TF af, HM and UM oc.
# M49 leaves two cases open. It does not list Taiwan (TW) separately: Eastern Asia. Kosovo (XK) is a user-assigned
# code outside ISO 3166-1 that geo databases nevertheless return: Southern Europe, with its neighbours.
# Antarctica (AQ) has no region in M49, so it has none here.
_COUNTRIES_OF_REGION: Final[Mapping[str, str]] = {
    "sa": "AR BO BR BV CL CO EC FK GF GS GY PE PY SR UY VE",  # 005 South America
    "us": (
        "BM CA GL PM US "  # 021 Northern America
        "BZ CR GT HN MX NI PA SV "  # 013 Central America
        "AG AI AW BB BL BQ BS CU CW DM DO GD GP HT JM KN KY LC MF MQ MS PR SX TC TT VC VG VI"  # 029 Caribbean
    ),
    "eu": (
        "BG BY CZ HU MD PL RO RU SK UA "  # 151 Eastern Europe
        "AX DK EE FI FO GB GG IE IM IS JE LT LV NO SE SJ "  # 154 Northern Europe
        "AD AL BA ES GI GR HR IT ME MK MT PT RS SI SM VA XK "  # 039 Southern Europe
        "AT BE CH DE FR LI LU MC NL"  # 155 Western Europe
    ),
    "ap": (
        "CN HK JP KP KR MN MO TW "  # 030 Eastern Asia
        "BN ID KH LA MM MY PH SG TH TL VN "  # 035 South-eastern Asia
        "AF BD BT IN IR LK MV NP PK "  # 034 Southern Asia
        "KG KZ TJ TM UZ"  # 143 Central Asia
    ),
    "af": (
        "DZ EG EH LY MA SD TN "  # 015 Northern Africa
        "BI DJ ER ET IO KE KM MG MU MW MZ RE RW SC SO SS TF TZ UG YT ZM ZW "  # 014 Eastern Africa
        "AO CD CF CG CM GA GQ ST TD "  # 017 Middle Africa
        "BW LS NA SZ ZA "  # 018 Southern Africa
        "BF BJ CI CV GH GM GN GW LR ML MR NE NG SH SL SN TG"  # 011 Western Africa
    ),
    "me": "AE AM AZ BH CY GE IL IQ JO KW LB OM PS QA SA SY TR YE",  # 145 Western Asia
    "oc": (
        "AU CC CX HM NF NZ "  # 053 Australia and New Zealand
        "FJ NC PG SB VU "  # 054 Melanesia
        "FM GU KI MH MP NR PW UM "  # 057 Micronesia
        "AS CK NU PF PN TK TO TV WF WS"  # 061 Polynesia
    ),
}

REGIONS: Final[tuple[str, ...]] = tuple(_COUNTRIES_OF_REGION)

REGION_OF_COUNTRY: Final[Mapping[str, str]] = {
    country: region for region, countries in _COUNTRIES_OF_REGION.items() for country in countries.split()
}

COUNTRIES: Final = frozenset(REGION_OF_COUNTRY) | {"AQ"}
"""ISO 3166-1 alpha-2 codes, and XK."""

_REGION_OF_CONTINENT: Final[Mapping[str, str]] = {
    "AF": "af", "AS": "ap", "EU": "eu", "NA": "us", "OC": "oc", "SA": "sa"
}  # fmt: skip
"""For records without a country. Western Asia (me) cannot be told from the rest of Asia."""


def located(country: object, continent: object) -> GeoInfo | None:
    """Return the location that a record of a geo database gives, or None.

    Some have "", "None", a number or a code of their own ("EU", "XX") where they know no country: that is none.
    """
    code = country.upper() if isinstance(country, str) and country.isascii() else ""
    if code in COUNTRIES:
        return GeoInfo(code, region_of(code))
    region = _REGION_OF_CONTINENT.get(continent) if isinstance(continent, str) else None
    return GeoInfo(None, region) if region is not None else None


def region_of(country: str | None) -> str | None:
    """Return the region of a country, one of REGIONS, or None if the country is unknown.

    `country` is an ISO 3166-1 alpha-2 code in either case. Some geo databases return '' or the text 'None' for an
    unknown address: that is None here, never a default region.
    """
    # Upper-casing turns some other letters into ASCII: the ligature "fi" would become Finland.
    if country is None or not country.isascii():
        return None
    return REGION_OF_COUNTRY.get(country.upper())


def geo_tier(
    backend_country: str | None, backend_region: str | None, client: GeoInfo | None, pop_region: str | None
) -> int:
    """Return the tier of a backend: 0 the client's country, 1 the client's region, 2 this POP's region, 3 the rest.

    For a client without a location only tiers 2 and 3 apply (seed: architecture, "Scoring").
    """
    if client is not None:
        if client.country is not None and client.country == backend_country:
            return 0
        if client.region is not None and client.region == backend_region:
            return 1
    return 2 if pop_region is not None and pop_region == backend_region else 3
