"""The router's releases, for everybody: the tarballs with their hashes."""

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

blueprint = Blueprint("releases", __name__, url_prefix="/downloads")

_RELEASE: Final = re.compile(
    r"smart-router-license-[0-9][0-9.]{0,20}-py3[0-9]{1,2}-[a-z0-9_]{1,40}\.tar\.gz"
)


@dataclass(frozen=True)
class Release:
    """One tarball."""

    name: str
    size: int
    """Bytes."""
    sha256: str


def releases() -> list[Release]:
    """Return the tarballs that lie in the downloads' directory, the latest name first."""
    try:
        paths = sorted(portal().settings.downloads_dir.iterdir(), reverse=True)
    except OSError:
        return []
    return [
        Release(path.name, status.st_size, _sha256(path, status.st_mtime_ns, status.st_size))
        for path in paths
        if _RELEASE.fullmatch(path.name) and path.is_file() and (status := path.stat())
    ]


@lru_cache(maxsize=64)
def _sha256(path: Path, _changed_ns: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@blueprint.get("")
@public
def show() -> ResponseReturnValue:
    """List the releases."""
    return render_template(
        "public/releases.html", releases=releases(), origin=portal().settings.origin
    )


@blueprint.get("/SHA256SUMS")
@public
def sums() -> Response:
    """Give the hashes in the form `sha256sum -c` reads."""
    lines = "".join(f"{each.sha256}  {each.name}\n" for each in releases())
    return Response(lines, content_type="text/plain; charset=utf-8")


@blueprint.get("/<release>")
@public
def download(release: str) -> ResponseReturnValue:
    """Hand a tarball out."""
    # Only what is listed: nothing of the path comes from outside.
    if release not in {each.name for each in releases()}:
        raise NotFound("There is no such release.")
    return send_file(
        portal().settings.downloads_dir / release,
        mimetype="application/gzip",
        as_attachment=True,
        download_name=release,
        max_age=300,
    )
