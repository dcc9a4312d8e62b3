"""What stands under static/vendor is what was built, and nothing in it reaches out."""

import base64
import hashlib
import json
from pathlib import Path

STATIC = Path(__file__).parents[2] / "static"
VENDOR = STATIC / "vendor"


def test_the_manifest_names_every_file_with_its_hash() -> None:
    found = {
        path.relative_to(VENDOR).as_posix(): "sha512-"
        + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert found == json.loads((VENDOR / "manifest.json").read_text())
    assert any(name.startswith("govuk-frontend-") for name in found)


def test_style_sheets_load_nothing() -> None:
    sheets = list(STATIC.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        text = sheet.read_text()
        assert "url(" not in text, sheet
        assert "@import" not in text, sheet


def test_nothing_looks_like_a_government() -> None:
    for sheet in STATIC.rglob("*.css"):
        text = sheet.read_text().lower()
        assert "transport" not in text, sheet
        assert "#ffdd00" not in text, f"{sheet}: the yellow of GOV.UK's focus"
