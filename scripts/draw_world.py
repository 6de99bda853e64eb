#!/usr/bin/env python3
"""Draw the map of the admin page: fetch Natural Earth with npm, project it, simplify it, write two small files.

The files are app/admin/page/land.path (the land as one SVG path) and app/admin/page/places.json (the position of each
country and region of app/domain/geography.py; of a country, the centre of its largest part). Both are committed. Run
this script only to change the map.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from math import asin, cos, radians, sin, sqrt
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app.domain.geography import REGION_OF_COUNTRY

PAGE = ROOT / "app" / "admin" / "page"
SHAPES = "world-atlas"  # Natural Earth as TopoJSON: the land, and countries by their ISO 3166-1 number
CODES = "i18n-iso-countries"  # which number is which alpha-2 code
WIDTH = 1000.0
SOUTHERNMOST = -58.0  # without Antarctica
SMALLEST_AREA = 1.2  # of land that is drawn, in square units of the map
TOLERANCE = 0.35  # largest distance of a simplified coast from the true one, in units of the map
MIDDLE = 11.0  # the central meridian, for which the map's edges run through the Bering Strait, not through Russia
PARTS = {  # longitude and latitude of territories that Natural Earth includes in another country
    "BQ": (-68.3, 12.2), "BV": (3.4, -54.4), "CC": (96.8, -12.2), "CX": (105.6, -10.5), "GF": (-53.1, 4.0),
    "GP": (-61.5, 16.2), "MQ": (-61.0, 14.6), "RE": (55.5, -21.1), "SJ": (16.0, 78.5), "TK": (-171.8, -9.2),
    "YT": (45.2, -12.8),
}  # fmt: skip
REGIONS = {  # longitude and latitude of a region, for edges and backends without a country
    "sa": (-58, -12), "us": (-98, 39), "eu": (11, 49), "ap": (108, 25), "af": (21, 4), "me": (46, 28), "oc": (134, -25),
}  # fmt: skip

Point = tuple[float, float]
Ring = list[Point]


def project(longitude: float, latitude: float) -> Point:
    """Project degrees with Equal Earth (Šavrič, Patterson, Jenny 2018) onto a map WIDTH wide; y grows southwards."""
    a1, a2, a3, a4 = 1.340264, -0.081106, 0.000893, 0.003796
    theta = asin(sqrt(3) / 2 * sin(radians(latitude)))
    square = theta * theta
    x = 2 * sqrt(3) * radians(longitude) * cos(theta) / (
        3 * (9 * a4 * square**4 + 7 * a3 * square**3 + 3 * a2 * square + a1)
    )  # fmt: skip
    y = theta * (a1 + a2 * square + square**3 * (a3 + a4 * square))
    scale = WIDTH / (2 * 2.7066)  # the equator is 2 × 2.7066 long
    return WIDTH / 2 + x * scale, (1.3173 - y) * scale


def fetch(package: str, folder: Path, wanted: Iterable[str]) -> dict[str, Any]:
    """Return JSON files of the newest version of an npm package."""
    try:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        sys.exit("npm is not installed (Debian: apt-get install npm)")
    except subprocess.CalledProcessError as error:
        sys.exit(f"npm pack failed with exit code {error.returncode}")
    (archive,) = folder.glob(f"{package}-*.tgz")
    with tarfile.open(archive) as members:
        return {name: json.load(members.extractfile(f"package/{name}")) for name in wanted}  # type: ignore[arg-type]


def rings_of(topology: dict[str, Any], geometry: dict[str, Any]) -> Iterator[Ring]:
    """Return the outer rings of a TopoJSON geometry, in degrees."""
    (kx, ky), (dx, dy) = topology["transform"]["scale"], topology["transform"]["translate"]

    def arc(number: int) -> Ring:
        x = y = 0
        points = []
        for step_x, step_y in topology["arcs"][number if number >= 0 else ~number]:
            x, y = x + step_x, y + step_y
            points.append((x * kx + dx, y * ky + dy))
        return points if number >= 0 else points[::-1]

    if geometry["type"] == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from rings_of(topology, part)
        return
    polygons = geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]
    for polygon in polygons:
        ring: Ring = []
        for number in polygon[0]:
            ring += arc(number)[bool(ring) :]
        yield unwrapped(ring)


def unwrapped(ring: Ring) -> Ring:
    """Make longitudes relative to MIDDLE, and continuous where a ring crosses the edge of the map."""
    longitudes = [ring[0][0]]
    for longitude, _ in ring[1:]:
        longitudes.append(longitude - 360 * round((longitude - longitudes[-1]) / 360))
    turns = round((sum(longitudes) / len(longitudes) - MIDDLE) / 360)
    return [(to - MIDDLE - 360 * turns, latitude) for to, (_, latitude) in zip(longitudes, ring, strict=True)]


def signed_area(ring: Ring) -> float:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True)) / 2


def centre(ring: Ring) -> Point:
    """Return the centroid of the area that a ring encloses."""
    area, x, y = signed_area(ring), 0.0, 0.0
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        cross = x0 * y1 - x1 * y0
        x, y = x + (x0 + x1) * cross, y + (y0 + y1) * cross
    return (x / (6 * area), y / (6 * area)) if area else ring[0]


def simplified(points: Ring) -> Ring:
    """Remove points within TOLERANCE of the simplified line (Douglas and Peucker)."""
    if len(points) < 3:
        return points
    (x0, y0), (x1, y1) = points[0], points[-1]
    length = sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2)

    def distance(point: Point) -> float:
        if not length:
            return sqrt((point[0] - x0) ** 2 + (point[1] - y0) ** 2)
        return abs((x1 - x0) * (y0 - point[1]) - (x0 - point[0]) * (y1 - y0)) / length

    farthest = max(range(1, len(points) - 1), key=lambda number: distance(points[number]))
    if distance(points[farthest]) <= TOLERANCE:
        return [points[0], points[-1]]
    return simplified(points[: farthest + 1])[:-1] + simplified(points[farthest:])


def land_path(topology: dict[str, Any]) -> str:
    """Return the land as one SVG path, in tenths of a unit and relative coordinates."""
    parts = []
    for ring in rings_of(topology, topology["objects"]["land"]):
        if max(latitude for _, latitude in ring) < SOUTHERNMOST:
            continue
        projected = [project(*point) for point in ring]
        if abs(signed_area(projected)) < SMALLEST_AREA:
            continue
        tenths = [(round(x * 10), round(y * 10)) for x, y in simplified(projected)]
        (x, y), text = tenths[0], ""
        for to_x, to_y in tenths[1:-1]:
            if (to_x, to_y) != (x, y):
                text += f"{to_x - x} {to_y - y} ".replace(" -", "-")
                x, y = to_x, to_y
        parts.append(f"M{tenths[0][0]} {tenths[0][1]}l{text.strip()}z")
    return "".join(parts)


def places(topology: dict[str, Any], numbers: dict[str, str]) -> dict[str, list[int]]:
    """Return the position of each country, by alpha-2 code, and of each region, by name."""
    pieces: dict[str, list[Ring]] = {}
    for country in topology["objects"]["countries"]["geometries"]:
        code = numbers.get(str(country.get("id", "")))
        if country["properties"]["name"] == "Kosovo":
            code = "XK"  # has no number in ISO 3166-1
        if code is None or code not in REGION_OF_COUNTRY:
            continue
        pieces.setdefault(code, []).extend([project(*point) for point in ring] for ring in rings_of(topology, country))
    middles = {code: centre(max(rings, key=lambda ring: abs(signed_area(ring)))) for code, rings in pieces.items()}
    middles |= {code: project(*unwrapped([place])[0]) for code, place in (PARTS | REGIONS).items()}
    return {code: [round(x), round(y)] for code, (x, y) in sorted(middles.items())}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes = fetch(SHAPES, folder, ["land-110m.json", "countries-10m.json"])
        codes = fetch(CODES, folder, ["codes.json"])["codes.json"]
    path = land_path(shapes["land-110m.json"])
    found = places(shapes["countries-10m.json"], {number: alpha2 for alpha2, _, number, *_ in codes})
    (PAGE / "land.path").write_text(path + "\n")
    (PAGE / "places.json").write_text(json.dumps(found, separators=(",", ":")).replace("],", "],\n") + "\n")
    print(f"{len(path):,} characters of land, {len(found)} places")


main()
