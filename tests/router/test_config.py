"""The configuration: what it says, and how it is refused."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.commands.cli import run
from router.config import (
    Caller,
    Config,
    Model,
    load_config,
    parse_config,
    parse_duration,
)
from router.yaml_file import ConfigError, Problem

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43
TOKEN = "ab" * 32
MINIMAL = """\
server:
  listen: 127.0.0.1:8080
  license: {path: license.json, state_path: state/license-state.json}
"""
WHOLE = f"""\
server:
  listen: "[::1]:8080"
  upstream: http://127.0.0.1:9000/v1/
  license:
    enabled: true
    path: /app/config/license.json
    state_path: /app/state/license-state.json
    instance_fingerprint: "fp_0123456789"
    recheck_interval: 15m
    grace_period_on_validation_error: 7d
    fail_open_for_dev: false
    revocation: {{mode: file, path: /app/config/revocation-bundle.json,
      require_current_bundle: true, fail_closed_on_bundle_error: false}}
    lease: {{state_dir: /app/state/lease, url: "", ca_file: ""}}
admin: {{users: {{admin: "{HASH}"}}, metrics_token_file: metrics-token}}
callers: [{{name: app-1, token_sha256: {TOKEN}, tokens_total: 100_000}}, {{name: b,
  token_sha256: {"1" * 64}}}]
models: [{{id: general, group: chat, features: [routing]}}]
"""
BASE = Path("/etc/router")


def parsed(text: str, *, distribution: bool = False) -> Config:
    return parse_config(text.encode(), BASE, distribution=distribution)


def problems(text: str | bytes, *, distribution: bool = False) -> tuple[Problem, ...]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as refused:
        parse_config(data, BASE, distribution=distribution)
    return refused.value.problems


def test_a_whole_configuration() -> None:
    config = parsed(WHOLE)
    server = config.server
    assert (server.host, server.port) == ("::1", 8080)
    assert server.upstream == "http://127.0.0.1:9000/v1"
    license_ = server.license
    assert license_.path == Path("/app/config/license.json")
    assert license_.instance_fingerprint == "fp_0123456789"
    assert (license_.recheck_interval_s, license_.grace_period_s) == (900, 7 * 86_400)
    assert license_.revocation.mode == "file"
    assert license_.revocation.require_current_bundle
    assert not license_.revocation.fail_closed_on_bundle_error
    assert license_.lease.state_dir == Path("/app/state/lease")
    assert license_.lease.ca_file is None
    assert config.admin.users == (("admin", HASH),)
    assert config.admin.metrics_token_file == BASE / "metrics-token"
    assert config.callers == (Caller("app-1", TOKEN, 100_000), Caller("b", "1" * 64))
    assert config.models == (Model("general", "chat", ("routing",)),)


def test_what_is_left_out_has_the_documented_value() -> None:
    license_ = parsed(MINIMAL).server.license
    assert license_.path == BASE / "license.json"
    assert (license_.recheck_interval_s, license_.grace_period_s) == (3600, 86_400)
    assert license_.revocation.mode == "off"
    assert license_.revocation.fail_closed_on_bundle_error
    assert not license_.fail_open_for_dev


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("0s", 0)]
    + [(each, None) for each in ("90", "1.5h", "-1h", "1w", "01h", "1h30m", " 1h", "1h\n", "367d")],
)
def test_durations(text: str, seconds: int | None) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("change", "line", "path", "said"),
    [
        (
            ("path: /app/config/l", "paht: /app/config/l"),
            6,
            "server.license.paht",
            "server.license.path",
        ),
        (("enabled: true", "enable: true"), 5, "server.license.enable", "server.license.enabled"),
        (
            ("recheck_interval: 15m", "recheck_intervall: 15m"),
            9,
            "server.license.recheck_intervall",
            "server.license.recheck_interval",
        ),
        (("  upstream:", "  upstreams:"), 3, "server.upstreams", "server.upstream"),
        (
            ("mode: file", "Mode: file"),
            12,
            "server.license.revocation.Mode",
            "server.license.revocation.mode",
        ),
        (("group: chat", "groups: chat"), 18, "models[0].groups", "models[].group"),
        (
            ("metrics_token_file", "token_sha256"),
            15,
            "admin.token_sha256",
            "callers[].token_sha256",
        ),
        (
            ("enabled: true", "enabled: false"),
            5,
            "server.license.enabled",
            "config rejects enabled: false",
        ),
        (("enabled: true", "enabled: yes"), 5, "server.license.enabled", "must be true or false"),
        (
            ("enabled: true", 'enabled: "true"'),
            5,
            "server.license.enabled",
            "must be true or false",
        ),
        (("15m", "15"), 9, "server.license.recheck_interval", "write 90s, 15m, 24h or 7d"),
        (("15m", "0s"), 9, "server.license.recheck_interval", "at least 1s"),
        (("fp_0123456789", "short"), 8, "server.license.instance_fingerprint", "8 to 128"),
        (("mode: file", "mode: on"), 12, "server.license.revocation.mode", "off or file"),
        (
            ("path: /app/config/revocation-bundle.json", 'path: ""'),
            12,
            "server.license.revocation.path",
            "is empty",
        ),
        ((HASH, "hunter2"), 15, "admin.users.admin", "argon2id"),
        (("m=65536", "m=9999999"), 15, "admin.users.admin", "cost"),
        ((TOKEN, TOKEN[:-1]), 16, "callers[0].token_sha256", "sha256sum"),
        ((TOKEN, "1" * 64), 17, "callers[1].token_sha256", "already"),
        (("name: b", "name: app-1"), 16, "callers[1].name", "already"),
        (("100_000", "-5"), 16, "callers[0].tokens_total", "whole number"),
        (("100_000", "1e5"), 16, "callers[0].tokens_total", "whole number"),
        (("features: [routing]", "features: routing"), 18, "models[0].features", "list"),
        (('"[::1]:8080"', "8080"), 2, "server.listen", "127.0.0.1:8080"),
        (("http://127.0.0.1:9000/v1/", "ftp://host"), 3, "server.upstream", "http://HOST"),
        (("http://127.0.0.1:9000/v1/", "http://u:p@host"), 3, "server.upstream", "http://HOST"),
        (("/app/config/license.json", ""), 6, "server.license.path", "no value"),
        (("name: b", "name: yes"), 16, "callers[1].name", "in quotes"),
        (("100_000", "0100"), 16, "callers[0].tokens_total", "whole number"),
        (("127.0.0.1:9000", "127.0.0.1:99999"), 3, "server.upstream", "http://HOST"),
        (("path: /app/config/license.json", "path: []"), 6, "server.license.path", "single value"),
        (("users: {admin:", 'users: {"a:b":'), 15, "admin.users.a:b", "no colon"),
        (("models:", "server: {}\nmodels:"), 18, "server", "twice"),
    ],
)
def test_a_wrong_line_is_named_and_mended(
    change: tuple[str, str], line: int, path: str, said: str
) -> None:
    found = problems(WHOLE.replace(*change, 1))
    assert [each.path for each in found] == [path]
    assert found[0].line == line
    assert said in found[0].message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("- a\n", "mapping"),
        ("a: [\n", "not YAML"),
        ("a: \x01\n", "not YAML"),
        (b"\xff\xfea", "UTF-8"),
        ("a: &x [1]\nb: *x\n", "anchors"),
        ("a: *x\n", "anchors"),
        ("server: !!python/object:os.system {}\n", "tags"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("[" * 5000, "deeper"),
        ("a: " + "x" * 1_100_000, "longer"),
    ],
    ids=range(11),
)
def test_what_is_no_plain_yaml_is_refused(text: str | bytes, said: str) -> None:
    assert said in problems(text)[0].message


def test_all_problems_are_reported_at_once() -> None:
    text = "server:\n  listen: x\n  license: {enabled: false}\nmodel: []\n"
    assert [(each.line, each.path) for each in problems(text)] == [
        (2, "server.listen"),
        (3, "server.license.enabled"),
        (3, "server.license.path"),
        (3, "server.license.state_path"),
        (4, "model"),
    ]


def test_a_release_refuses_to_fail_open() -> None:
    text = WHOLE.replace("fail_open_for_dev: false", "fail_open_for_dev: true")
    assert parsed(text).server.license.fail_open_for_dev
    assert "distribution" in problems(text, distribution=True)[0].message


def test_a_merge_key_is_refused() -> None:
    assert "plain word" in problems(MINIMAL + "<<: {admin: {}}\n")[0].message


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(text.encode("utf-8", "surrogatepass"), BASE)


@given(st.integers(0, len(WHOLE) - 1), st.sampled_from("x_ :-[{\n\t&*!"))
def test_a_changed_character_is_read_or_refused(place: int, character: str) -> None:
    with contextlib.suppress(ConfigError):
        parsed(WHOLE[:place] + character + WHOLE[place + 1 :])


@pytest.mark.parametrize("mode", ["off", "'off'", "file"])
def test_revocation_modes(mode: str) -> None:
    text = WHOLE.replace("mode: file", f"mode: {mode}")
    assert parsed(text).server.license.revocation.mode == mode.strip("'")


def test_check_config_says_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "router.yaml"
    file.write_text(WHOLE)
    assert run(["check-config", str(file), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["result"] == "valid"
    assert facts["callers"] == ["app-1", "b"]
    assert HASH not in str(facts)
    assert TOKEN not in str(facts)


def test_check_config_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "router.yaml"
    file.write_text(WHOLE.replace("enabled: true", "enabled: false"))
    assert run(["check-config", str(file), "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "result": "invalid",
        "problems": [
            {
                "line": 5,
                "path": "server.license.enabled",
                "message": "config rejects enabled: false; remove the line and install a valid "
                "license file",
            }
        ],
    }
    assert "line 5: server.license.enabled: config rejects enabled: false" in printed.err


def test_check_config_of_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check-config", str(tmp_path / "none.yaml")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_a_file_is_read_relative_to_itself(tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_text(MINIMAL)
    assert load_config(file).server.license.path == tmp_path / "license.json"
