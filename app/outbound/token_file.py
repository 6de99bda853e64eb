"""Writes the text of a token to a file: at the first start of an edge, and by commands."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

from app.domain.tokens import ALL_SCOPES, SECRET_BYTES, Token, digest_of, token_text

FIRST_TOKEN_NAME: Final = "first"


def make_first_token(path: Path) -> Token:
    """Return a new token with every scope, whose text is in the file. It is to be stored then. Raises OSError.

    The file comes first, because a stored token with unknown text would lock everyone out.
    """
    text = token_text(secrets.token_bytes(SECRET_BYTES))
    write_token(path, text)
    return Token(FIRST_TOKEN_NAME, digest_of(text), ALL_SCOPES, time.time())


def write_token(path: Path, text: str) -> None:
    """Write a line to a new file readable by its owner only, replacing any other. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
