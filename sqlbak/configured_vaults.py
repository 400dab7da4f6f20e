"""The configured vaults by name, opened on demand, with the leases of each."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from sqlbak.configured_keys import key_settings
from sqlbak.errors import ObjectNotFound
from sqlbak.policy.schema import Configuration
from sqlbak.policy.vault_settings import VaultSettings
from sqlbak.stopping import StopSignal
from sqlbak.vault.holder import holder_name, is_known_dead
from sqlbak.vault.layout import VAULT_KEY
from sqlbak.vault.lease import Leases
from sqlbak.vault.opening import S3Options, open_store
from sqlbak.vault.retry import RetryPolicy
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.throttle import BandwidthCap, ThrottledStore
from sqlbak.vault.vault import Vault, create_vault, open_vault
from sqlbak.vault.vault_keys import KeySettings

__all__ = ["ConfiguredVaults"]


class ConfiguredVaults:
    """The vaults of one configuration, each opened once. Thread-safe; close them after use.

    ``retries``, ``stop`` and ``bandwidth``: as of a fleet (sqlbak/fleet.py).
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        retries: RetryPolicy | None,
        stop: StopSignal,
        bandwidth: BandwidthCap | None,
    ) -> None:
        self._configuration = configuration
        self._retries = retries
        self._stop = stop
        self._bandwidth = bandwidth
        self._vaults: dict[str, Vault] = {}
        self._leases: dict[str, Leases] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            vaults, self._vaults, self._leases = list(self._vaults.values()), {}, {}
        for vault in vaults:
            vault.store.close()

    def open(self, name: str, *, is_made: bool) -> Vault:
        """The vault of that name; with ``is_made`` it is made where there is none, else
        VaultMissing. SecretUnavailable."""
        with self._lock:
            vault = self._vaults.get(name)
        if vault is not None:
            return vault
        settings = self._configuration.vaults[name]
        store = self._capped(self.store_of(settings), settings)
        try:
            keys = key_settings(settings.encryption)
            vault = _made(store, settings, keys) if is_made else open_vault(store, keys)
        except BaseException:
            store.close()
            raise
        with self._lock:
            kept = self._vaults.setdefault(name, vault)
        if kept is not vault:
            store.close()
        return kept

    def leases(self, name: str) -> Leases:
        """The leases of the vault of that name, as this process sees them."""
        vault = self.open(name, is_made=True)
        with self._lock:
            if name not in self._leases:
                self._leases[name] = Leases(
                    vault.store, holder=holder_name(), is_known_dead=is_known_dead
                )
            return self._leases[name]

    def _capped(self, store: ObjectStore, settings: VaultSettings) -> ObjectStore:
        """``store``, sending no faster than its settings and ``bandwidth`` allow."""
        caps = [] if self._bandwidth is None else [self._bandwidth]
        if settings.limits.bandwidth is not None:
            caps.append(BandwidthCap(settings.limits.bandwidth.bytes_per_second))
        return ThrottledStore(store, caps, stop=self._stop) if caps else store

    def store_of(self, settings: VaultSettings) -> ObjectStore:
        """The bare store that ``settings`` name; the caller closes it. SecretUnavailable."""
        s3 = settings.s3
        if s3 is None:
            return open_store(settings.url, policy=self._retries, stop=self._stop)
        return open_store(
            settings.url,
            S3Options(
                endpoint=s3.endpoint,
                region=s3.region,
                addressing=s3.addressing,
                ca_bundle=s3.ca_file,
                access_key=None if s3.access_key is None else s3.access_key.resolve(),
                secret_key=None if s3.secret_key is None else s3.secret_key.resolve(),
                session_token=None if s3.session_token is None else s3.session_token.resolve(),
            ),
            policy=self._retries,
            stop=self._stop,
        )


def _made(store: ObjectStore, settings: VaultSettings, keys: KeySettings) -> Vault:
    """Open the vault, or make it in a store that proves that it can hold one."""
    try:
        store.head(VAULT_KEY)
    except ObjectNotFound:
        from sqlbak.vault.probe import probe, require  # brings boto3, and is needed once a vault

        require(probe(store), store.url)
    redundancy = settings.redundancy.value
    return create_vault(store, redundancy=redundancy, now=datetime.now(UTC), keys=keys)
