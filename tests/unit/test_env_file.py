"""The file of variables: which one is read, how lines are parsed, and its faults."""

from __future__ import annotations

import pytest
from honcho.environ import parse

from app.commands.env_file import read_env_file
from app.config import ConfigError, load

LINES = """\
# a comment, then an empty line

EDGEPROXY_REGION=af  # and another comment
 EDGEPROXY_APP = "two words"
EDGEPROXY_LOG_PATH=""
EDGEPROXY_PROXY_PROTOCOL_FROM=127.0.0.2/32, ::1
PORT=8000
DEMO=1
PORT=9000
export OTHER=1
OTHER_EMPTY=
city=São Paulo
lines='one\\ntwo'
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def faults(environment=None):
    with pytest.raises(ConfigError) as caught:
        read_env_file(environment or {})
    return caught.value.faults


def test_lines_are_parsed_like_honchos(folder):
    (folder / ".env").write_text(LINES)
    variables = read_env_file({}).variables
    assert variables == parse(LINES)
    assert variables["EDGEPROXY_REGION"] == "af"
    assert variables["EDGEPROXY_PROXY_PROTOCOL_FROM"] == "127.0.0.2/32,::1"
    assert (variables["EDGEPROXY_LOG_PATH"], variables["PORT"]) == ("", "9000")
    assert "OTHER" not in variables and "OTHER_EMPTY" not in variables


def test_without_a_file_or_with_a_folder_of_its_name_there_is_none(folder):
    assert read_env_file({}) is None
    (folder / ".env").mkdir()
    assert read_env_file({}) is None


def test_another_file_is_named_by_the_variable_which_must_exist(folder):
    (folder / ".env").write_text("EDGEPROXY_REGION=af\n")
    (folder / "prod.env").write_text("EDGEPROXY_REGION=eu\n")
    file = read_env_file({"EDGEPROXY_ENV_FILE": "prod.env"})
    assert (file.path, file.variables) == (folder / "prod.env", {"EDGEPROXY_REGION": "eu"})
    assert faults({"EDGEPROXY_ENV_FILE": "absent"}) == [f"{folder}/absent: No such file or directory"]
    assert faults({"EDGEPROXY_ENV_FILE": "/"}) == ["/: Is a directory"]


@pytest.mark.parametrize("environment", [{"EDGEPROXY_ENV_FILE": ""}, {"HONCHO_PROCESS_NAME": "edge.1"}])
def test_none_is_read_when_the_variable_is_empty_or_honcho_has_started_the_process(folder, environment):
    (folder / ".env").write_bytes(b"\xff")
    assert read_env_file(environment) is None


def test_a_file_that_is_there_and_cannot_be_read_is_a_fault(folder):
    (folder / ".env").symlink_to(".env")
    assert faults() == [f"{folder}/.env: Too many levels of symbolic links"]


def test_text_that_is_not_utf_8_is_a_fault(folder):
    (folder / ".env").write_bytes("EDGEPROXY_APP=São\n".encode("latin-1"))
    assert faults() == [f"{folder}/.env: is not UTF-8"]


def test_every_bad_line_is_named_without_its_value(folder):
    (folder / ".env").write_text("A='\nEDGEPROXY_APP=\nexport EDGEPROXY_API_TOKEN=secret\nEDGEPROXY_REGION af\nB=\0\n")
    rule = 'is not NAME=value (an empty value is written NAME="")'
    assert faults() == [
        f"{folder}/.env: line 1: No closing quotation",
        *(f"{folder}/.env: line {number}: {rule}" for number in (2, 3, 4)),
        f"{folder}/.env: line 5: contains a NUL character",
    ]


def test_it_names_the_variables_that_it_overrides(folder):
    (folder / ".env").write_text("EDGEPROXY_REGION=af\nEDGEPROXY_APP=web\nDEMO=1\n")
    file = read_env_file({"EDGEPROXY_REGION": "eu", "EDGEPROXY_APP": "web", "PATH": "/bin"})
    assert file.overridden == ("EDGEPROXY_REGION",)
    assert str(file) == f"variables from {folder}/.env, overriding EDGEPROXY_REGION of the environment"
    assert str(read_env_file({})) == f"variables from {folder}/.env"


def test_a_program_that_embeds_the_edge_reads_no_file(folder):
    (folder / ".env").write_text("EDGEPROXY_REGION=af\n")
    assert load({"EDGEPROXY_REGION": "eu"}).region == "eu"
