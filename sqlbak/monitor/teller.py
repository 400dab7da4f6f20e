"""Which of several schedulers tells what all of them see: the one that holds a lease in the first
vault that is there. Whoever cannot find out tells: twice is better than never.
"""

from __future__ import annotations

from sqlbak.errors import LeaseHeld, SqlbakError
from sqlbak.fleet import Fleet
from sqlbak.vault.holder import holder_name, is_known_dead
from sqlbak.vault.lease import Lease, Leases
from sqlbak.vault.vault import Vault

__all__ = ["LEASE_NAME", "Teller"]

LEASE_NAME = "notices"


class Teller:
    """One scheduler's part. For one thread; ``close`` it before its fleet is closed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._leases: Leases | None = None
        self._lease: Lease | None = None

    def is_ours_to_tell(self) -> bool:
        """Whether this process tells now; tries to take the lease if it is free."""
        try:
            if self._lease is not None:
                self._lease.check()
                return True
        except SqlbakError:
            self._give_back()
        try:
            vault = self._vault()
            if vault is None:
                return True
            if self._leases is None:
                # Kept: what it has seen of another's lease tells when that one has expired.
                self._leases = Leases(
                    vault.store, holder=holder_name(), is_known_dead=is_known_dead
                )
            self._lease = self._leases.acquire(LEASE_NAME, purpose="telling people")
        except LeaseHeld:
            return False
        except SqlbakError:
            return True
        return True

    def close(self) -> None:
        """Leave it to another."""
        self._give_back()

    def _vault(self) -> Vault | None:
        for name in self._fleet.vault_names():
            vault = self._fleet.existing_vault(name)
            if vault is not None:
                return vault
        return None

    def _give_back(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None
