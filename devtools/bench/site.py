"""A portal with one license for many instances, and the check of its database after a run."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from devtools.bench.servers import ROOT, BenchFailed
from devtools.postgres import Cluster
from licensing.encoding import sha256_hex
from licensing.errors import LicensingError
from licensing.keys import ZERO_SHA256
from licensing.verify import KeysetTrust, verify_lease
from portal.config import load_settings
from portal.db.licenses import License
from portal.domain.catalog import fill_terms
from portal.domain.terms import Mode
from portal.services.accounts import create_account
from portal.services.context import Actor, Transactions
from portal.services.deployments import create_deployment
from portal.services.enrollments import create_enrollment_code
from portal.services.entitlements import approve_entitlement, propose_entitlement
from portal.services.keys import current_keyset, unix
from portal.services.licenses import issue_license, request_issue
from portal.wiring import wire_command

COMMAND = Actor("command")
DATABASE = "bench"
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
MOST_INSTANCES = 100
"""The portal allows this many uses of a code, and enrollments from one address at a time."""


@dataclass(frozen=True)
class Site:
    """A portal that is set up, and what an instance needs to enroll."""

    environment: Mapping[str, str]
    transactions: Transactions
    conninfo: str
    license_id: str
    license_sha256: str
    code: str


def make_database(cluster: Cluster) -> str:
    """Create the database of a run; return the connection string.

    Raises:
        BenchFailed: the server does not write commits to the disk.
    """
    with psycopg.connect(
        f"host={cluster.socket_dir} user=postgres dbname=postgres", autocommit=True
    ) as connection:
        for name, wanted in DURABLE.items():
            row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            if row is None or row[0] != wanted:
                raise BenchFailed(f"PostgreSQL runs with {name} = {row and row[0]}, not {wanted}")
        connection.execute("CREATE DATABASE bench")
    return f"host={cluster.socket_dir} user=postgres dbname={DATABASE}"


@contextmanager
def site(cluster: Cluster, directory: Path, port: int, instances: int) -> Iterator[Site]:
    """Set up a portal with a license in lease mode and a code for this many instances."""
    conninfo = make_database(cluster)
    environment = {
        "PORTAL_DATA_DIR": str(directory / "data"),
        "PORTAL_DATABASE_URL": cluster.url(DATABASE),
        "PORTAL_ORIGIN": f"http://127.0.0.1:{port}",
        "PORTAL_SURFACES": "machine",
    }
    subprocess.run(
        [sys.executable, "-m", "portal", "init", "--dev", "--json"],
        check=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    wiring = wire_command(load_settings(environment))
    transactions = wiring.transactions
    try:
        with transactions.writing(COMMAND) as context:
            account = create_account(
                context, name="Bench", owner_email="owner@bench.example", owner_name="Owner"
            )
            deployment = create_deployment(context, account_id=account.id, name="Bench")
            proposed = propose_entitlement(
                context,
                deployment_id=deployment.id,
                created_by=None,
                terms=fill_terms(
                    "pilot-30d", mode=Mode.LEASE, limits={"max_instances": MOST_INSTANCES}
                ),
                reason="bench",
            )
            entitlement = approve_entitlement(context, proposed.id, approved_by=None)
            asked = request_issue(context, entitlement.id, cause="start")
        issue_license(transactions, asked.id, COMMAND)
        with transactions.writing(COMMAND) as context:
            license_ = context.session.get_one(License, asked.id)
            code, _ = create_enrollment_code(
                context, deployment_id=deployment.id, uses=instances, created_by=None
            )
            sha256 = license_.payload_sha256 or ""
        yield Site(environment, transactions, conninfo, asked.id, sha256, code)
    finally:
        wiring.database.dispose()


def check_chains(made: Site, instances: int, renewals: int) -> int:
    """Check every chain from its first lease to its head; return the number of leases.

    Raises:
        BenchFailed: a number is missing, a link is broken, a lease does not verify, or there are
            more or fewer leases than the instances received.
    """
    with made.transactions.reading(COMMAND) as context:
        trust = KeysetTrust(current_keyset(context).document)
        at = unix(context.at)
    leases = 0
    with psycopg.connect(made.conninfo) as connection:
        heads = connection.execute("SELECT id, keyid, seq, lease_sha256 FROM instances").fetchall()
        for instance_id, keyid, seq, sha256 in heads:
            rows = connection.execute(
                "SELECT epoch, seq, payload_sha256, envelope FROM leases"
                " WHERE instance_id = %s ORDER BY epoch, seq",
                [instance_id],
            ).fetchall()
            before = ZERO_SHA256
            for number, row in enumerate(rows, 1):
                payload = base64.b64decode(json.loads(row[3])["payload"])
                lease = json.loads(payload)
                linked = lease["prev_sha256"] == before and sha256_hex(payload) == row[2]
                if not linked or row[:2] != (1, number) or lease["seq"] != number:
                    raise BenchFailed(f"the chain of {instance_id} is broken at number {number}")
                before = row[2]
            if (seq, sha256) != (len(rows), before):
                raise BenchFailed(f"the head of {instance_id} is not its last lease")
            try:
                verify_lease(rows[-1][3], trust, at, instance_keyid=keyid)
            except LicensingError as error:
                raise BenchFailed(f"the last lease of {instance_id}: {error.code}") from error
            leases += len(rows)
        forks = connection.execute("SELECT count(*) FROM forks").fetchone()
    if len(heads) != instances or leases != instances + renewals or forks != (0,):
        raise BenchFailed(
            f"{instances} instances were answered {renewals} times;"
            f" the database has {len(heads)} instances and {leases} leases, forks: {forks}"
        )
    return leases
