"""The page of distributions, for everybody: tarballs of the router with their hashes."""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, render_template, send_file
from flask.typing import ResponseReturnValue

from portal.domain.errors import NotFound
from portal.web.access import public
from portal.web.portal import portal

blueprint = Blueprint("distributions", __name__, url_prefix="/downloads")

_NAME: Final = re.compile(
    r"smart-router-license-[0-9][0-9.]{0,20}-py3[0-9]{1,2}-[a-z0-9_]{1,40}\.tar\.gz"
)


@dataclass(frozen=True)
class Distribution:
    """One tarball."""

    name: str
    size: int
    """Bytes."""
    sha256: str


def distributions() -> list[Distribution]:
    """Return the tarballs in the downloads directory, sorted by name, the latest first."""
    try:
        paths = sorted(portal().settings.downloads_dir.iterdir(), reverse=True)
    except OSError:
        return []
    return [
        Distribution(path.name, status.st_size, _sha256(path, status.st_mtime_ns, status.st_size))
        for path in paths
        if _NAME.fullmatch(path.name) and path.is_file() and (status := path.stat())
    ]


@lru_cache(maxsize=64)
def _sha256(path: Path, _changed_ns: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@blueprint.get("")
@public
def show() -> ResponseReturnValue:
    """List the distributions."""
    return render_template(
        "public/distributions.html",
        distributions=distributions(),
        origin=portal().settings.origin,
    )


@blueprint.get("/SHA256SUMS")
@public
def sums() -> Response:
    """Return the hashes in the format that `sha256sum -c` reads."""
    lines = "".join(f"{each.sha256}  {each.name}\n" for each in distributions())
    return Response(lines, content_type="text/plain; charset=utf-8")


@blueprint.get("/<distribution>")
@public
def download(distribution: str) -> ResponseReturnValue:
    """Send a tarball."""
    # Only a listed name is served, so no part of the path comes from outside.
    if distribution not in {each.name for each in distributions()}:
        raise NotFound("There is no such distribution.")
    return send_file(
        portal().settings.downloads_dir / distribution,
        mimetype="application/gzip",
        as_attachment=True,
        download_name=distribution,
        max_age=300,
    )
