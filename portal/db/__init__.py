"""Stored nouns: one module each, with mapped classes and their named queries.

Importing this package maps every class, so that foreign keys between modules resolve.
"""

from portal.db import (
    accounts,
    audit,
    bundles,
    deployments,
    emails,
    entitlements,
    instances,
    jobs,
    leases,
    licenses,
    people,
    requests,
)
from portal.db.base import Base

__all__ = [
    "Base",
    "accounts",
    "audit",
    "bundles",
    "deployments",
    "emails",
    "entitlements",
    "instances",
    "jobs",
    "leases",
    "licenses",
    "people",
    "requests",
]
