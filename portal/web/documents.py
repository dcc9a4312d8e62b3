"""Documents that everybody may fetch: revocation bundle, keysets, and the API's description."""

import hashlib

from flask import Blueprint, Response, request

from portal.resources import OPENAPI
from portal.services import bundles, keys
from portal.web.access import machine
from portal.web.portal import portal, request_actor

blueprint = Blueprint("documents", __name__, url_prefix="/v1")


def document(content: bytes) -> Response:
    """Answer with a public document, or 304 if the client has it already."""
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
        return document(bundles.published_bundle(context).envelope)


@blueprint.get("/keyset.json")
@machine
def keyset() -> Response:
    """Answer with the newest keyset."""
    with portal().transactions.reading(request_actor()) as context:
        return document(keys.published_keyset(context).envelope)


@blueprint.get("/keysets/<int:version>.json")
@machine
def keyset_version(version: int) -> Response:
    """Answer with one keyset, for routers that step through the versions."""
    with portal().transactions.reading(request_actor()) as context:
        return document(keys.keyset_version(context, version).envelope)


@blueprint.get("/openapi.json")
@machine
def openapi() -> Response:
    """Answer with the OpenAPI description of this surface."""
    return document(OPENAPI.read_bytes())
