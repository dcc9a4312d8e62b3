"""The documents every router may fetch: revocation bundle, keysets, and the API's description."""

import hashlib
from pathlib import Path

from flask import Blueprint, Response, request

from portal.db.bundles import latest_bundle
from portal.db.keys import KeysetVersion
from portal.domain.errors import NotFound, Unavailable
from portal.services.keys import published_keyset
from portal.web.access import machine
from portal.web.portal import portal, request_actor

blueprint = Blueprint("documents", __name__, url_prefix="/v1")

OPENAPI = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


def document(content: bytes) -> Response:
    """Answer with a public document, or 304 when the client has it."""
    response = Response(content, content_type="application/json")
    response.set_etag(hashlib.sha256(content).hexdigest())
    response.headers["Cache-Control"] = "public, max-age=300"
    response.make_conditional(request)
    return response


@blueprint.get("/revocations/bundle.json")
@machine
def bundle() -> Response:
    """Answer with the newest revocation bundle."""
    with portal().transactions.reading(request_actor()) as context:
        stored = latest_bundle(context.session)
    if stored is None:
        raise Unavailable("No bundle was published yet.")
    return document(stored.envelope)


@blueprint.get("/keyset.json")
@machine
def keyset() -> Response:
    """Answer with the newest keyset."""
    with portal().transactions.reading(request_actor()) as context:
        return document(published_keyset(context).envelope)


@blueprint.get("/keysets/<int:version>.json")
@machine
def keyset_version(version: int) -> Response:
    """Answer with one keyset, for routers that step through the versions."""
    with portal().transactions.reading(request_actor()) as context:
        stored = context.session.get(KeysetVersion, version) if version < 2**31 else None
    if stored is None:
        raise NotFound(f"Keyset {version} was never published.")
    return document(stored.envelope)


@blueprint.get("/openapi.json")
@machine
def openapi() -> Response:
    """Answer with the OpenAPI description of this surface."""
    return document(OPENAPI.read_bytes())
