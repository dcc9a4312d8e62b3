"""A customer's host: its license, its lease directory, and the agent that works there."""

from dataclasses import dataclass
from pathlib import Path

from licensing.encoding import parse_json
from licensing.envelope import Envelope
from licensing.lease import Lease
from licensing.verify import KeysetTrust
from portal.db.instances import Fork, Instance
from portal.db.leases import Lease as LeaseRow
from portal.db.licenses import License
from portal.services.context import Actor, Transactions
from portal.services.keys import current_keyset, unix
from router.lease.store import LeaseState, LeaseStore
from router.network.agent import Enrollment, Grounds, enroll, read_grounds, renew
from router.network.fetch import HttpFetch
from tests.factories.instances import make_code
from tests.factories.licenses import make_lease_license
from tests.router.network import Network

COMMAND = Actor("command")


@dataclass
class Ticks:
    """A machine's clocks, moved by hand."""

    time: int = 0
    """The wall clock (Unix time)."""
    seconds: int = 1000
    """Since boot."""
    boot_id: str = "b" * 32

    def wall(self) -> int:
        """Return the wall clock."""
        return self.time

    def boottime(self) -> int:
        """Return the seconds since boot."""
        return self.seconds

    def pass_by(self, seconds: int) -> None:
        """Let time go by, asleep or awake."""
        self.time += seconds
        self.seconds += seconds

    def reboot(self) -> None:
        """Start the kernel again."""
        self.seconds = 10
        self.boot_id = "".join(chr(ord("a") + (ord(each) - 96) % 6) for each in self.boot_id)


@dataclass(frozen=True)
class Site:
    """One router's lease directory, and the portal far away."""

    transactions: Transactions
    network: Network
    license: License
    trust: KeysetTrust
    code: str
    directory: Path

    @property
    def store(self) -> LeaseStore:
        """The lease directory."""
        return LeaseStore(self.directory)

    @property
    def state(self) -> LeaseState:
        """What the lease directory remembers."""
        return self.store.load()

    @property
    def held(self) -> Lease:
        """The lease at hand."""
        lease = self.state.held()
        assert lease is not None
        return lease

    def grounds(self) -> Grounds:
        """The license, the keys and the time."""
        assert self.license.envelope is not None
        at = unix(self.transactions.ports.clock.now())
        return read_grounds(self.license.envelope, self.trust, at, None)

    def enroll(self) -> Lease:
        """Enroll with the code."""
        with self.store.locked(create=True) as store:
            return enroll(store, self.grounds(), Enrollment(self.code), HttpFetch(self.network.url))

    def renew(self) -> Lease:
        """Renew once."""
        with self.store.locked() as store:
            return renew(store, self.grounds(), HttpFetch(self.network.url))

    def portal_holds(self) -> tuple[list[int], int]:
        """Return the numbers of all leases the portal gave, in order, and its count of forks."""
        with self.transactions.reading(COMMAND) as context:
            rows = context.session.query(LeaseRow).order_by(LeaseRow.number)
            return [row.seq for row in rows], context.session.query(Fork).count()

    def instances(self) -> int:
        """Return how many instances the portal knows."""
        with self.transactions.reading(COMMAND) as context:
            return context.session.query(Instance).count()


def make_site(transactions: Transactions, network: Network, directory: Path) -> Site:
    """Make a license for many instances, and a site that is not enrolled yet."""
    license_ = make_lease_license(transactions, sku="pilot-30d", limits={"max_instances": 100})
    with transactions.reading(COMMAND) as context:
        trust = KeysetTrust(current_keyset(context).document)
    code = make_code(transactions, license_)
    return Site(transactions, network, license_, trust, code, directory)


def request_id_of(body: bytes) -> str:
    """Return the id of a request as it was sent, with or without the lease before."""
    value = parse_json(body, max_bytes=len(body))
    envelope = Envelope.from_object(value.get("request", value))
    return str(parse_json(envelope.payload, max_bytes=len(envelope.payload))["request_id"])
