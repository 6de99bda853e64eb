"""Private keys of WireGuard (Curve25519), made on the machine that uses them, in files readable only by the owner."""

from __future__ import annotations

import base64
import binascii
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from Crypto.PublicKey import ECC

_KEY_BYTES: Final = 32


class KeyFileError(Exception):
    """A private key cannot be read or made, or others can read it."""


def public_key(path: Path) -> str:
    """Return, in base64, the public key of the private key in a file. Raises KeyFileError, FileNotFoundError."""
    try:
        with path.open(encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            private = base64.b64decode(file.read().strip(), validate=True)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    except (binascii.Error, UnicodeDecodeError):
        raise KeyFileError(f"{path}: does not contain a private key") from None
    if mode & 0o077:
        raise KeyFileError(f"{path}: others can read it (mode {mode:o}): make a new key, or at least chmod 600")
    if len(private) != _KEY_BYTES:
        raise KeyFileError(f"{path}: does not contain a private key")
    public = ECC.construct(curve="curve25519", seed=private).public_key().export_key(format="raw")
    return base64.b64encode(public).decode()


def make_key(path: Path) -> str:
    """Make a private key unless the file exists, and return the public key. Raises KeyFileError."""
    try:
        return public_key(path)
    except FileNotFoundError:
        pass
    try:
        # Linked to its name when complete: no reader sees half a key, and of two concurrent makers the first wins.
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(_clamped(os.urandom(_KEY_BYTES))) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, path)
        finally:
            os.unlink(unfinished)
    except FileExistsError:
        pass
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    return public_key(path)


def _clamped(secret: bytes) -> bytes:
    """Turn random bytes into a private key (RFC 7748, section 5)."""
    key = bytearray(secret)
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return bytes(key)
