"""The composition root: puts together the parts of the web, the worker and the command.

Custody: the web's wiring can open only the lease key. The worker's and the command's can open the
license, revocation and seal keys too; only the command creates keys and signs with the root.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from portal.config import BadSetting, KeeperSettings, Settings
from portal.db.session import Database, make_engine
from portal.domain.causes import Approvals
from portal.domain.ports import Mailer, SignerUnavailable
from portal.gateways.custody import FileCustody, NoCustody
from portal.gateways.mail import DirectoryMailer, JinjaMailTemplates, SmtpMailer
from portal.gateways.passwords import Argon2Passwords
from portal.gateways.rate_limits import DatabaseRateLimiter
from portal.gateways.secret_box import AesGcmBox
from portal.gateways.signers import KeptKey
from portal.gateways.signers.aws_kms import AwsKmsKey
from portal.gateways.signers.gcp_kms import GcpKmsKey
from portal.gateways.signers.pkcs11 import TokenKey, TokenLibrary
from portal.gateways.signers.vault import VaultKey, VaultServer
from portal.gateways.signing import SignerDirectory
from portal.gateways.system import SystemClock, SystemRandomness
from portal.jobs.handlers import Handlers
from portal.jobs.worker import Worker
from portal.services.context import Policy, Ports, Transactions
from portal.web.portal import WebPortal

WEB_ROLES = ("lease",)
WORKER_ROLES = ("license", "lease", "revocation", "seal")
COMMAND_ROLES = ("root", *WORKER_ROLES)


@dataclass(frozen=True)
class Wiring:
    """What one process is put together from."""

    settings: Settings
    database: Database
    transactions: Transactions
    signers: SignerDirectory
    custody: FileCustody


def _wire(settings: Settings, roles: tuple[str, ...]) -> Wiring:
    database = Database(make_engine(settings.database_url))
    randomness = SystemRandomness()
    signers = SignerDirectory(
        settings.keys_dir, settings.key_passphrase(), roles, make_keepers(settings.keepers)
    )
    custody = FileCustody(settings.keys_dir, signers)
    ports = Ports(
        clock=SystemClock(),
        randomness=randomness,
        passwords=Argon2Passwords(),
        secrets=AesGcmBox(settings.data_key(), randomness),
        signers=signers,
        custody=custody if "seal" in roles else NoCustody(),
        limiter=DatabaseRateLimiter(database),
    )
    policy = Policy(
        origin=settings.origin,
        former_origins=settings.former_origins,
        issuer=settings.issuer,
        approvals=Approvals(settings.approvals),
        evaluations_a_day=settings.evaluations_a_day,
        denied_domains=settings.denied_domains,
        staff_address=settings.staff_address,
    )
    return Wiring(settings, database, Transactions(database, ports, policy), signers, custody)


def wire_web(settings: Settings) -> WebPortal:
    """Wire a process that serves HTTP, without license, revocation and root keys."""
    wiring = _wire(settings, WEB_ROLES)
    return WebPortal(
        settings,
        wiring.transactions,
        settings.session_key(),
        JinjaMailTemplates(settings.origin),
    )


def wire_command(settings: Settings) -> Wiring:
    """Wire the `portal` command."""
    return _wire(settings, COMMAND_ROLES)


def wire_worker(settings: Settings) -> tuple[Wiring, Worker]:
    """Wire the worker."""
    wiring = _wire(settings, WORKER_ROLES)
    handlers = Handlers(
        wiring.transactions, JinjaMailTemplates(settings.origin), make_mailer(settings)
    )
    name = f"{socket.gethostname()}:{os.getpid()}"
    return wiring, Worker(wiring.transactions, handlers.by_kind(), handlers.schedules(), name)


def make_keepers(keepers: KeeperSettings) -> dict[str, Callable[[str], KeptKey]]:
    """Return how to open keys that are not files, by scheme; none is opened yet."""
    made: dict[str, Callable[[str], KeptKey]] = {"aws-kms": AwsKmsKey, "gcp-kms": GcpKmsKey}
    if keepers.pkcs11_module is not None:
        library = TokenLibrary(keepers.pkcs11_module, _kept(keepers.pkcs11_pin))
        made["pkcs11"] = partial(TokenKey, library=library)
    if keepers.vault_address is not None:
        server = VaultServer(
            keepers.vault_address,
            _kept(keepers.vault_token),
            keepers.vault_namespace,
            keepers.vault_ca_file,
        )
        made["vault"] = partial(VaultKey, server=server)
    return made


def _kept(secret: Callable[[], str]) -> Callable[[], str]:
    """Have a secret that can no longer be read when it is wanted say so as signers do."""

    def read() -> str:
        try:
            return secret()
        except BadSetting as error:
            raise SignerUnavailable(str(error)) from error

    return read


def make_mailer(settings: Settings) -> Mailer:
    """Return the mailer the settings ask for."""
    if settings.smtp_url is None:
        return DirectoryMailer(
            settings.mail_dir, settings.mail_from, SystemClock(), SystemRandomness()
        )
    return SmtpMailer(
        settings.smtp_url, settings.smtp_password(), settings.mail_from, SystemClock()
    )
