"""What is in the tree: no link, which would point at a place that only one machine has."""

from __future__ import annotations

import subprocess

import pytest

from tests.harness import ROOT

LINK = "120000"
"""Git's mode of a symbolic link."""


def test_no_link_is_in_the_tree():
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no checkout")
    assert [line for line in listed.stdout.splitlines() if line.startswith(LINK)] == []
