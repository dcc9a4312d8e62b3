"""The page of distributions: each with its hash, and no other file of the directory."""

import hashlib
import io
from pathlib import Path

import pytest

from tests.web.visitor import Served, Visitor

NAME = "smart-router-license-0.1.0-py311-linux_x86_64.tar.gz"
OLDER = "smart-router-license-0.0.9-py311-linux_x86_64.tar.gz"


@pytest.fixture
def directory(app: Served) -> Path:
    """The downloads' directory."""
    path: Path = app.pages.extensions["portal"].settings.downloads_dir
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_without_a_distribution_the_page_says_so(app: Served) -> None:
    page = Visitor(app.test_client()).get("/downloads")
    assert "No downloads yet" in page.text


@pytest.mark.asvs("3.2.1")
def test_distributions_are_listed_with_their_hashes_and_can_be_downloaded(
    app: Served, directory: Path
) -> None:
    visitor = Visitor(app.test_client())
    for name in (OLDER, NAME):
        (directory / name).write_bytes(name.encode() * 9)
    page = visitor.get("/downloads")
    assert page.text.index(NAME) < page.text.index(OLDER)
    sums = visitor.client.get("/downloads/SHA256SUMS").text
    for name in (OLDER, NAME):
        answer = visitor.client.get(f"/downloads/{name}")
        assert answer.status_code == 200
        assert answer.headers["Content-Disposition"] == f"attachment; filename={name}"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        sha256 = hashlib.sha256(answer.data).hexdigest()
        assert sha256 in page.html
        assert f"{sha256}  {name}\n" in sums
        answer.close()
    (directory / NAME).write_bytes(b"replaced by another build")
    assert (
        hashlib.sha256(b"replaced by another build").hexdigest() in visitor.get("/downloads").html
    )


@pytest.mark.asvs("5.3.2")
@pytest.mark.parametrize(
    "name",
    [
        "../portal.sqlite3",
        "..%2fportal.sqlite3",
        "notes.txt",
        "%2e%2e/x",
        NAME + ".sig",
        ".",
        "%00",
    ],
)
def test_nothing_else_can_be_downloaded(app: Served, directory: Path, name: str) -> None:
    (directory / "notes.txt").write_text("private")
    (directory / (NAME + ".sig")).write_text("private")
    answer = app.test_client().get(f"/downloads/{name}", follow_redirects=True)
    assert answer.status_code in (400, 404)
    assert b"private" not in io.BytesIO(answer.data).read()
    assert "notes.txt" not in Visitor(app.test_client()).get("/downloads").text
