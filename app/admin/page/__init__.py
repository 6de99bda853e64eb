"""The web page at `/`: one HTML document, assembled at the start from the files in this folder.

The document contains nothing about this edge and needs no token; the script requests its data from the API with the
token that the user enters. Its CSP allows only this script, and connections to this origin only.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

from flask import Response

from app.admin.api import Api

_FOLDER: Final = Path(__file__).parent
_SCRIPTS: Final = (
    "dom", "format", "api", "rates", "sorting", "confirm", "problems", "map", "tables", "endpoints", "log", "main",
)  # fmt: skip
"""Concatenated to one module in this order; `main.js` starts it."""


def add_page(api: Api) -> None:
    """Add the page's route."""
    document, policy = make_document()
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}

    def show_page() -> Response:
        return Response(document, mimetype="text/html", headers=headers)

    api.get_open("/", "show_page", show_page)


def make_document() -> tuple[str, str]:
    """Return the document and its Content-Security-Policy."""
    style, script = _text("page.css"), "\n".join(_text(f"{name}.js") for name in _SCRIPTS)
    parts = {"style": style, "script": script, "land": _text("land.path"), "places": _text("places.json")}
    document = _text("page.html")
    for mark, text in parts.items():
        document = document.replace(f"[[{mark}]]", text)
    rules = {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return document, "; ".join(f"{directive} {sources}" for directive, sources in rules.items())


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """Return the source expression that allows exactly this text, inline."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
