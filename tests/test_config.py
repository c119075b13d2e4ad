"""Settings: where each comes from, and what is said about a wrong one."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from reactive_store.config import ENVIRONMENT_PREFIX, Settings, load_settings
from reactive_store.errors import BadRequest
from reactive_store.limits import Limits


def write_pyproject(app: Path, text: str) -> None:
    (app / "pyproject.toml").write_text(text, encoding="utf-8")


def test_settings_of_an_app_are_complete_without_any_other_value(tmp_path):
    settings = Settings(app=tmp_path)
    assert settings.data == tmp_path / ".reactive_store"
    assert (settings.host, settings.port, settings.site_port) == ("127.0.0.1", 3210, 3211)
    assert (settings.functions, settings.schema_file) == ("functions", "schema.py")
    assert settings.redact is True
    assert settings.durability == "full"
    assert settings.limits == Limits()


def test_settings_cannot_be_changed(tmp_path):
    settings = Settings(app=tmp_path)
    with pytest.raises(ValidationError):
        settings.port = 1


@pytest.mark.parametrize(
    ("port", "site_port"), [(3210, 3211), (8000, 8001), (0, 0), ("4000", 4001), (65535, 0)]
)
def test_the_site_port_follows_the_port(port, site_port):
    assert Settings(port=port).site_port == site_port


def test_a_site_port_that_is_given_stays():
    assert Settings(port=8000, site_port=9000).site_port == 9000


def test_explicit_beats_environment_beats_pyproject_beats_default(tmp_path, monkeypatch):
    write_pyproject(
        tmp_path, '[tool.reactive_store]\nport = 1111\nsite-port = 2222\nhost = "::1"\n'
    )
    monkeypatch.setenv(ENVIRONMENT_PREFIX + "PORT", "3333")
    monkeypatch.setenv(ENVIRONMENT_PREFIX + "SITE_PORT", "4444")
    settings = load_settings(tmp_path, site_port=5555)
    assert (settings.host, settings.port, settings.site_port) == ("::1", 3333, 5555)


def test_none_means_that_it_was_not_given(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_PREFIX + "PORT", "3333")
    assert load_settings(tmp_path, port=None, host=None).port == 3333


def test_an_empty_variable_is_no_value(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_PREFIX + "PORT", "")
    assert load_settings(tmp_path).port == 3210


def test_the_schema_file_is_called_schema_outside(tmp_path, monkeypatch):
    write_pyproject(tmp_path, '[tool.reactive_store]\nschema = "tables.py"\n')
    assert load_settings(tmp_path).schema_file == "tables.py"
    monkeypatch.setenv(ENVIRONMENT_PREFIX + "SCHEMA", "other.py")
    assert load_settings(tmp_path).schema_file == "other.py"
    assert load_settings(tmp_path, schema_file="third.py").schema_file == "third.py"


def test_a_data_directory_in_pyproject_starts_at_the_app(tmp_path):
    write_pyproject(tmp_path, '[tool.reactive_store]\ndata = "var/data"\n')
    assert load_settings(tmp_path).data == tmp_path / "var" / "data"


def test_a_data_directory_given_elsewhere_starts_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_settings(Path("app"), data="elsewhere").data == tmp_path / "elsewhere"
    monkeypatch.setenv(ENVIRONMENT_PREFIX + "DATA", "other")
    assert load_settings(Path("app")).data == tmp_path / "other"
    monkeypatch.delenv(ENVIRONMENT_PREFIX + "DATA")
    assert load_settings(Path("app")).data == tmp_path / "app" / ".reactive_store"


def test_truth_values_of_the_environment_are_words(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_PREFIX + "REDACT", "false")
    assert load_settings(tmp_path).redact is False


def test_limits_come_from_a_table_of_their_own(tmp_path):
    write_pyproject(tmp_path, "[tool.reactive_store.limits]\nread_documents = 10\n")
    limits = load_settings(tmp_path).limits
    assert limits.read_documents == 10
    assert limits.read_bytes == Limits().read_bytes


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[tool.reactive_store]\nprot = 1\n", ["pyproject.toml", "'prot'", "port"]),
        ("[tool.reactive_store]\nport = 70000\n", ["'port'", "pyproject.toml", "65535"]),
        ('[tool.reactive_store]\ndurability = "none"\n', ["'durability'", "full"]),
        ("[tool]\nreactive_store = 3\n", ["table"]),
        ("[tool.reactive_store\n", ["pyproject.toml", "cannot be read"]),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, text, parts):
    write_pyproject(tmp_path, text)
    with pytest.raises(BadRequest) as refused:
        load_settings(tmp_path)
    assert refused.value.code == "InvalidSetting"
    for part in parts:
        assert part in refused.value.message


def test_a_wrong_variable_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_PREFIX + "SITE_PORT", "many")
    with pytest.raises(BadRequest, match=ENVIRONMENT_PREFIX + "SITE_PORT"):
        load_settings(tmp_path)


def test_a_wrong_argument_is_said_to_come_from_the_command_line(tmp_path):
    with pytest.raises(BadRequest, match=r"'port' from the command line"):
        load_settings(tmp_path, port="x")


def test_other_tools_of_a_pyproject_are_none_of_our_business(tmp_path):
    write_pyproject(tmp_path, "[tool.ruff]\nline-length = 3\n")
    assert load_settings(tmp_path) == Settings(app=tmp_path)


def test_a_limit_may_come_from_the_environment_and_leaves_the_others_alone(tmp_path, monkeypatch):
    write_pyproject(tmp_path, "[tool.reactive_store.limits]\nread_documents = 10\nlog_lines = 11\n")
    monkeypatch.setenv("REACTIVE_STORE_LIMITS_LOG_LINES", "500")
    monkeypatch.setenv("REACTIVE_STORE_LIMITS_COMPUTE_SECONDS", "2.5")
    monkeypatch.setenv("REACTIVE_STORE_LIMITS_TABLES", "")  # set to nothing is not set
    limits = load_settings(tmp_path).limits
    assert (limits.log_lines, limits.read_documents, limits.compute_seconds) == (500, 10, 2.5)
    assert limits.tables == Limits().tables


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("REACTIVE_STORE_LIMITS_LOG_LINE", "5", "REACTIVE_STORE_LIMITS_LOG_LINE sets no limit"),
        ("REACTIVE_STORE_LIMITS_LOG_LINES", "many", "limits.log_lines"),
        ("REACTIVE_STORE_LIMITS_LOG_LINES", "-1", "log_lines is below 0"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(tmp_path, monkeypatch, variable, value, text):
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadRequest, match=text):
        load_settings(tmp_path)
