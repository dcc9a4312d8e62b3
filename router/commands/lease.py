"""`router-license enroll`, `renew`, `release` and `status`."""

import argparse

from router.commands.grounds import named_enrollment, named_grounds, remembered_grounds
from router.commands.options import moment, readable
from router.commands.report import say, show
from router.errors import OK, UsageError
from router.lease.store import LeaseStore, describe
from router.network.agent import Grounds, enroll, release, renew
from router.network.fetch import HttpFetch


def run_enroll(options: argparse.Namespace) -> int:
    """Enroll this router with a code and install its first lease."""
    at = moment(options)
    enrollment = named_enrollment(options)
    grounds = named_grounds(options, at)
    fetch = _portal(options, grounds)
    with LeaseStore(options.state_dir).locked(create=True) as store:
        enroll(store, grounds, enrollment, fetch)
        show(readable(describe(store.load(), at), options), as_json=options.json)
    return OK


def run_renew(options: argparse.Namespace) -> int:
    """Renew the lease now."""
    at = moment(options)
    with LeaseStore(options.state_dir).locked() as store:
        grounds = remembered_grounds(options, store.load(), at)
        renew(store, grounds, _portal(options, grounds), again=options.again)
        show(readable(describe(store.load(), at), options), as_json=options.json)
    return OK


def run_release(options: argparse.Namespace) -> int:
    """Give up the lease and its slot; this router stops serving."""
    at = moment(options)
    with LeaseStore(options.state_dir).locked() as store:
        if store.load().released is None:
            grounds = remembered_grounds(options, store.load(), at)
            release(store, grounds, _portal(options, grounds))
        show(readable(describe(store.load(), at), options), as_json=options.json)
    say("the lease is given up; stop what renews it, or take it up again with renew --again")
    return OK


def run_status(options: argparse.Namespace) -> int:
    """Show the current lease; exit 0 while it serves, 7 if there is none, 6 if it was ended."""
    at = moment(options)
    if not options.state_dir.is_dir():
        raise UsageError(f"there is no lease directory {options.state_dir}")
    facts = describe(LeaseStore(options.state_dir).load(), at)
    show(readable(facts, options), as_json=options.json)
    if facts.get("serves"):
        return OK
    return {"not-enrolled": 7, "expired": 5}.get(str(facts["status"]), 6)


def _portal(options: argparse.Namespace, grounds: Grounds) -> HttpFetch:
    return HttpFetch(options.url or grounds.origin, options.ca_file)
