"""The documentation says what is there: settings, codes, commands, routes, links, examples."""

import ast
import json
import re
import shutil
import subprocess
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from argon2 import PasswordHasher
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from licensing.document import Document
from licensing.enrollment import EnrollmentRequest, LeaseRequest, ReleaseRequest
from licensing.envelope import MAX_BUNDLE_BYTES, Envelope
from licensing.keys import Keyset
from licensing.lease import Lease
from licensing.license import License
from licensing.names import CODES, ROUTER_CODES
from licensing.revocation import RevocationBundle
from portal.cli.main import portal
from portal.config import load_settings
from portal.db.bundles import latest_bundle
from portal.domain.lease_errors import REFUSALS
from portal.services.context import Actor, Transactions
from portal.services.health import findings
from portal.services.keys import current_keyset, published_keyset
from portal.web.problems import KINDS
from router.commands import codes
from router.commands.cli import _parser
from router.config import Config, load_config
from router.yaml_file import known_paths
from tests.applications import make_app
from tests.databases import copied_file
from tests.factories.licenses import make_license
from tests.web.visitor import Served

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
COMMAND = Actor("command")


@pytest.fixture
def database_url(sqlite_prepared: Path, tmp_path: Path) -> str:
    """One kind of database is enough here: nothing below depends on it."""
    return copied_file(sqlite_prepared, tmp_path)


@pytest.fixture
def app(transactions: Transactions, tmp_path: Path) -> Served:
    settings = load_settings({"PORTAL_DATA_DIR": str(tmp_path)})
    return make_app(settings, transactions)


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def without_code(text: str) -> str:
    """Return a page's text without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(text: str) -> list[tuple[int, str]]:
    """Return level and text of each heading."""
    found = re.findall(r"^(#+) +(.+?) *$", without_code(text), re.MULTILINE)
    return [(len(marks), title) for marks, title in found]


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, by GitHub's rule."""
    seen: dict[str, int] = {}
    found = set()
    for _, title in headings(path.read_text()):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = seen.get(slug, 0)
        seen[slug] = number + 1
        found.add(f"{slug}-{number}" if number else slug)
    return found


def table_keys(path: Path, pattern: str) -> list[str]:
    """Return the first cells of a page's table rows that match as code."""
    return re.findall(rf"^\| `({pattern})` \|", path.read_text(), re.MULTILINE)


# Settings


class Recorded(dict[str, str]):
    """An empty environment that remembers what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


def test_the_settings_table_has_exactly_the_settings_that_are_read() -> None:
    environment = Recorded()
    load_settings(environment)
    listed = table_keys(DOCS / "operators" / "settings.md", r"PORT\w*")
    assert len(listed) == len(set(listed))
    assert set(listed) == environment.asked


def test_every_setting_that_can_stop_the_start_has_its_cure() -> None:
    tree = ast.parse((ROOT / "portal" / "config.py").read_text())
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "BadSetting",
            "_origin",
            "_number",
            "self._secret",
        ):
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            named |= set(re.findall(r"\bPORT(?:AL_[A-Z_]+)?\b", " ".join(map(str, texts))))
    text = (DOCS / "operators" / "troubleshooting.md").read_text()
    assert named >= {"PORT", "PORTAL_ORIGIN", "PORTAL_DATA_KEY_FILE", "PORTAL_TRUSTED_PROXIES"}
    assert {name for name in named if f"`{name}" not in text} == set()


def test_every_line_of_the_doctor_has_its_cure(transactions: Transactions) -> None:
    with transactions.reading(COMMAND) as context:
        names = {
            each.name for each in findings(context, ("license", "lease", "revocation", "seal"))
        }
    listed = table_keys(DOCS / "operators" / "troubleshooting.md", "[a-z ]+")
    assert names | {"settings", "database", "schema"} <= set(listed)


# Codes


def sections(path: Path) -> dict[str, list[str]]:
    """Return the third-level headings under each second-level one."""
    found: dict[str, list[str]] = {}
    for level, title in headings(path.read_text()):
        if level == 2:
            found[title] = []
        elif level == 3:
            found[list(found)[-1]].append(title)
    return found


def test_every_code_has_a_section() -> None:
    verifying, shown, refusing = sections(DOCS / "router" / "errors.md").values()
    assert verifying[:-1] == list(CODES)
    assert verifying[-1] == "Codes of the command itself"
    assert shown == list(ROUTER_CODES)
    assert refusing[: len(REFUSALS)] == [refusal.code for refusal in REFUSALS]


def test_every_refusal_of_the_portal_can_be_explained() -> None:
    refusals = {refusal.code for refusal in REFUSALS}
    assert refusals <= codes.CODES.keys()
    page = (DOCS / "router" / "errors.md").read_text()
    for code in codes.CODES:
        assert f"### {code}\n" in page or f"| `{code}` |" in page, code


def test_every_section_says_what_it_means_how_to_see_and_fix_it() -> None:
    text = (DOCS / "router" / "errors.md").read_text()
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        if section.startswith("Codes of the command itself"):
            continue
        said = re.findall(r"^- \*\*(Means|See it|Fix it)", section, re.MULTILINE)
        assert said == ["Means", "See it", "Fix it"], section.splitlines()[0]


def test_the_sections_of_verify_name_its_exit_and_router_codes() -> None:
    text = (DOCS / "router" / "errors.md").read_text().partition("\n## Codes a router shows")[0]
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        code = CODES.get(section.splitlines()[0])
        if code is not None:
            assert f"Exit {code.exit}" in section, code.code
            assert f"`{code.router_code}`" in section, code.code


def test_the_order_of_verifying_is_the_table_of_codes() -> None:
    path = DOCS / "router-authors" / "verifying.md"
    rows = re.findall(
        r"^\| (?:\d+|\u2013) \|.*?\| (`.*?`) \| (\d) \|", path.read_text(), re.MULTILINE
    )
    listed = [
        (code, int(status)) for codes, status in rows for code in re.findall(r"`([\w-]+)`", codes)
    ]
    assert listed == [(code.code, code.exit) for code in CODES.values()]


def test_the_format_of_the_vectors_is_their_schemas() -> None:
    path = ROOT / "licensing" / "vectors" / "vectors.schema.json"
    parts = json.loads(path.read_text())["$defs"]
    listed = set(table_keys(DOCS / "router-authors" / "conformance.md", "[a-z_0-9]+"))
    assert listed == parts["test"]["properties"].keys() | parts["options"]["properties"].keys()


# Links


def links(path: Path) -> Iterator[str]:
    text = re.sub(r"`[^`\n]*`", "", without_code(path.read_text()))
    for image, target in re.findall(r"(!?)\[[^\]]*\]\(\s*([^)\s]+)\s*\)", text):
        if not image and not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_lead_somewhere(path: Path) -> None:
    for target in links(path):
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.is_relative_to(ROOT), target
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_images_say_what_they_show(path: Path) -> None:
    for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", without_code(path.read_text())):
        there = (path.parent / target).resolve()
        assert words.strip(), target
        assert there.parent == DOCS / "images"
        assert there.is_file() or not there.parent.exists(), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        for target in links(path):
            there = (path.parent / target.partition("#")[0]).resolve()
            if there.suffix == ".md" and there.is_file():
                waiting.append(there)
    assert {page_id(path) for path in PAGES if path not in reached} == set()


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_a_page_has_one_title_and_even_fences(path: Path) -> None:
    text = path.read_text()
    assert [level for level, _ in headings(text)].count(1) == 1
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) % 2 == 0


# Where changes go


def test_every_file_a_change_touches_exists() -> None:
    page = (DOCS / "contributing" / "where-changes-go.md").read_text()
    assert [title for level, title in headings(page) if level == 2] == [
        "A new SKU",
        "A new limit",
        "A new page",
        "A new refusal code",
        "A new job",
    ]
    rooms = "docs|devtools|licensing|portal|router|templates|tests"
    named = set(re.findall(rf"`((?:{rooms})/[\w./-]*)`", page))
    assert len(named) > 40
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_file_the_architecture_names_exists() -> None:
    page = (DOCS / "architecture.md").read_text()
    named = set(re.findall(r"`((?:licensing|portal|router)/[\w./-]*)`", page))
    assert len(named) > 20
    assert {name for name in named if not (ROOT / name).exists()} == set()
    for title in re.findall(r"^## The way of a .+$", page, re.MULTILINE)[1:]:
        way = page.partition(f"{title}\n")[2].partition("\n## ")[0]
        assert 5 <= len(re.findall(r"^\| \d \|", way, re.MULTILINE)) <= 8, title


def test_every_name_a_change_touches_is_in_its_file() -> None:
    page = (DOCS / "contributing" / "where-changes-go.md").read_text()
    checked = 0
    for row in re.findall(r"^\| (`.+) \|$", page, re.MULTILINE):
        files, what, _ = row.split(" | ")
        paths = [ROOT / name for name in re.findall(r"`([^`]+)`", files)]
        text = "".join(path.read_text() for path in paths if path.suffix == ".py")
        for name in re.findall(r"`([A-Za-z_]+)`", what) if text else ():
            assert re.search(rf"\b{name}\b", text), (name, files)
            checked += 1
    assert checked > 10


# Commands


def shell_lines(path: Path) -> Iterator[str]:
    """Return the lines of a page's shell blocks, or of a unit file, continued ones joined."""
    text = path.read_text()
    if path.suffix == ".md":
        blocks = re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        text = "\n".join(blocks)
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if not line.lstrip().startswith("#"):
            yield re.sub(r"\s#\s.*", "", line)


def commands(name: str) -> Iterator[tuple[Path, list[str]]]:
    """Return each call of a program in the documentation, as its words."""
    call = re.compile(rf"(?:^|[\s(;|&/=]){name} +([a-z-][^|;&)>]*)")
    for path in [*PAGES, *sorted((DOCS / "deploy").iterdir())]:
        for line in shell_lines(path) if path.is_file() else ():
            for words in call.findall(line):
                yield path, words.replace('"', "").split()


def test_every_portal_command_exists() -> None:
    found = list(commands("portal"))
    assert len(found) > 20
    for path, words in found:
        command: click.Command = portal
        rest = list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, (page_id(path), words)
            command = command.commands[rest.pop(0)]
        known = {name for each in command.params for name in each.opts} | {"--help", "-h"}
        unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - known
        assert not unknown, (page_id(path), words)


def subcommands(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            return dict(action.choices)
    return {}


def test_every_router_license_command_exists() -> None:
    found = list(commands("router-license"))
    assert len(found) > 10
    for path, words in found:
        parser: ArgumentParser = _parser()
        rest = list(words)
        while (choices := subcommands(parser)) and rest and not rest[0].startswith("-"):
            assert rest[0] in choices, (page_id(path), words)
            parser = choices[rest.pop(0)]
        known = set(parser._option_string_actions)
        unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - known
        assert not unknown, (page_id(path), words)


def test_the_example_of_a_configuration_is_one() -> None:
    config = load_config(DOCS / "router" / "examples" / "router.yaml", distribution=True)
    ((user, encoded),) = config.admin.users
    assert user == "admin"
    assert PasswordHasher().verify(encoded, "replace-with-password")


def test_every_key_of_the_configuration_is_in_the_table() -> None:
    page = (DOCS / "router" / "install.md").read_text()
    for path in known_paths(Config):
        top = path.split("[")[0]
        assert f"| `{path}` |" in page or f"| `{top}` |" in page or f"| `{path}." in page, path


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in PAGES:
        for line in shell_lines(path):
            for target in re.findall(r"(?:^|&& )make ([a-z-]+)", line):
                assert target in targets, (page_id(path), line)


# The API's description


def description() -> dict[str, Any]:
    value: dict[str, Any] = json.loads((DOCS / "openapi.json").read_text())
    return value


def test_the_description_is_openapi() -> None:
    OpenAPIV31SpecValidator(description()).validate()


def test_the_description_has_exactly_the_routes(app: Served) -> None:
    routes = {
        re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule): (rule.methods or set())
        - {"HEAD", "OPTIONS"}
        for rule in app.machine.url_map.iter_rules()
    }
    described = {
        path: {method.upper() for method in item} for path, item in description()["paths"].items()
    }
    assert described == routes


def test_the_portal_serves_the_description(app: Served) -> None:
    answer = app.test_client().get("/v1/openapi.json")
    assert answer.json == description()
    assert answer.headers["ETag"]


def test_the_description_knows_every_problem_and_each_has_a_section() -> None:
    listed = description()["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert set(listed) == {kind.code for kind in KINDS}
    refusing = list(sections(DOCS / "router" / "errors.md").values())[2]
    assert set(refusing) == set(listed)


def test_each_refusal_is_described_under_its_status() -> None:
    statuses: dict[str, set[int]] = {}
    for item in description()["paths"].values():
        for operation in item.values():
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get("application/problem+json")
                for code in (
                    content["schema"]["allOf"][1]["properties"]["code"]["enum"] if content else ()
                ):
                    statuses.setdefault(code, set()).add(int(status))
    for refusal in REFUSALS:
        assert statuses[refusal.code] == {refusal.status}


def examples() -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Return each example with where it stands and the schema it stands beside."""
    for path, item in description()["paths"].items():
        for method, operation in item.items():
            bodies = [("request", operation.get("requestBody", {}))]
            bodies += list(operation["responses"].items())
            for what, body in bodies:
                for content in body.get("content", {}).values():
                    for name, example in content.get("examples", {}).items():
                        where = f"{method} {path} {what} {name}"
                        yield where, content["schema"], example["value"]


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example[0])
def test_an_example_fits_its_schema(example: tuple[str, dict[str, Any], Any]) -> None:
    _, schema, value = example
    whole = {"components": description()["components"], **schema}
    Draft202012Validator(whole).validate(value)


MODELS: dict[str, type[Document]] = {
    model.PAYLOAD_TYPE: model
    for model in (
        EnrollmentRequest,
        LeaseRequest,
        ReleaseRequest,
        Lease,
        License,
        Keyset,
        RevocationBundle,
    )
}


def test_every_envelope_among_the_examples_is_well_formed() -> None:
    seen = set()

    def look(value: Any) -> None:
        if isinstance(value, dict) and value.keys() == {"payload", "payloadType", "signatures"}:
            envelope = Envelope.from_object(value)
            MODELS[envelope.payload_type].parse(envelope.payload)
            seen.add(envelope.payload_type)
        elif isinstance(value, dict):
            for each in value.values():
                look(each)

    for _, _, value in examples():
        look(value)
    assert seen == set(MODELS)


# Dependencies and decisions


def test_every_dependency_says_why_it_is_there() -> None:
    named = set()
    for name in ("requirements.in", "requirements-dev.in"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith(("-", "#")):
                named.add(re.match(r"[A-Za-z0-9-]+", line)[0])  # type: ignore[index]
    listed = table_keys(DOCS / "decisions" / "dependencies.md", "[a-z0-9-]+")
    assert sorted(listed) == sorted(named)


def test_the_list_of_decisions_is_whole() -> None:
    folder = DOCS / "decisions"
    linked = {target.partition("#")[0] for target in links(folder / "index.md")}
    assert linked == {path.name for path in folder.glob("*.md")} - {"index.md"}


# Examples that run


def test_the_openssl_example_runs(transactions: Transactions, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    license_ = make_license(transactions)
    assert license_.envelope is not None
    with transactions.reading(COMMAND) as context:
        root = current_keyset(context).document.roots[0].keyid
        (tmp_path / "keyset.json").write_bytes(published_keyset(context).envelope)
        bundle = latest_bundle(context.session)
    assert bundle is not None
    assert len(bundle.envelope) < MAX_BUNDLE_BYTES
    (tmp_path / "license.json").write_bytes(license_.envelope)
    text = (DOCS / "router-authors" / "index.md").read_text()
    block = re.search(r"^```sh\n(#!/bin/sh.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    script = tmp_path / "verify.sh"
    script.write_text(block[1])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(script), *arguments],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    good = run("license.json", "keyset.json", root)
    assert (good.returncode, good.stderr) == (0, "")
    assert f'"license_id":"{license_.id}"' in good.stdout
    assert run("license.json", "keyset.json", "0" * 64).returncode != 0
    envelope = json.loads(license_.envelope)
    payload = envelope["payload"]
    envelope["payload"] = payload[:40] + ("A" if payload[40] != "A" else "B") + payload[41:]
    (tmp_path / "changed.json").write_text(json.dumps(envelope, separators=(",", ":")))
    changed = run("changed.json", "keyset.json", root)
    assert changed.returncode != 0
    assert changed.stdout == ""
