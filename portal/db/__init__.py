"""Stored nouns: one module each, with mapped classes and their named queries.

Importing this package maps every class, so that foreign keys between modules resolve.
"""

from portal.db import (
    accounts,
    acts,
    audit,
    bundles,
    deployments,
    drafts,
    email_tokens,
    emails,
    entitlements,
    heartbeats,
    instances,
    jobs,
    keys,
    leases,
    licenses,
    notices,
    people,
    rate_limits,
    requests,
    second_factors,
    sign_ins,
    terms_of_use,
)
from portal.db.base import Base

__all__ = [
    "Base",
    "accounts",
    "acts",
    "audit",
    "bundles",
    "deployments",
    "drafts",
    "email_tokens",
    "emails",
    "entitlements",
    "heartbeats",
    "instances",
    "jobs",
    "keys",
    "leases",
    "licenses",
    "notices",
    "people",
    "rate_limits",
    "requests",
    "second_factors",
    "sign_ins",
    "terms_of_use",
]
