"""Private keys: by RFC 7748, whole or not there, and for their owner alone."""

from __future__ import annotations

import base64
import os
import stat

import pytest
from gevent.pool import Pool

from app.outbound.wireguard_keys import KeyFileError, make_key, public_key

ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
"""RFC 7748, section 6.1."""


def keep(path, content, mode=0o600):
    """Write a file with a mode."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_public_key_is_that_of_the_rfc(tmp_path):
    file = keep(tmp_path / "key", base64.b64encode(ALICE) + b"\n")
    assert base64.b64decode(public_key(file)).hex() == ALICE_PUBLIC
    assert make_key(file) == public_key(file), "it is there: no other is made"


def test_a_key_is_made_for_its_owner_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        public = make_key(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    private = base64.b64decode((tmp_path / "key").read_text())
    assert (len(private), private[0] & 7, private[31] >> 6) == (32, 0, 1), "clamped, section 5"
    assert public == public_key(tmp_path / "key") != make_key(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "other"], "nothing is left lying about"


def test_concurrent_makers_of_a_key_get_the_same_one(tmp_path):
    assert len(set(Pool(20).map(make_key, [tmp_path / "key"] * 20))) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    file = keep(tmp_path / "key", base64.b64encode(ALICE), mode)
    with pytest.raises(KeyFileError, match=f"others can read it \\(mode {mode:o}\\)"):
        make_key(file)
    assert file.read_bytes() == base64.b64encode(ALICE)


@pytest.mark.parametrize("content", [b"", b"\n", b"x", b"\xff" * 44, base64.b64encode(ALICE[:31]), b"A" * 44])
def test_an_invalid_key_is_refused_and_kept(tmp_path, content):
    file = keep(tmp_path / "key", content)
    with pytest.raises(KeyFileError, match="does not contain a private key"):
        make_key(file)
    assert file.read_bytes() == content


def test_an_impossible_path_is_reported(tmp_path):
    with pytest.raises(KeyFileError, match="No such file or directory"):
        make_key(tmp_path / "nowhere" / "key")
    with pytest.raises(KeyFileError, match="Is a directory"):
        make_key(tmp_path)
