#!/usr/bin/env python3
"""Seed the routing database. The same as `python -m app backends`, e.g. `scripts/seed_backends.py load --demo`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV_PYTHON = ROOT / ".venv" / "bin" / "python"

if VENV_PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), __file__, *sys.argv[1:]])

sys.path.insert(0, str(ROOT))

from app.commands.backends import backends
from app.commands.env_file import apply_env_file

apply_env_file()
backends(prog_name="seed_backends.py")
