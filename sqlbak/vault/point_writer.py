"""Making one recovery point: running record, payload, manifest, in this order and no other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Self

import sqlbak
from sqlbak.engines.port import BackupResult
from sqlbak.errors import LeaseLost, SqlbakError
from sqlbak.model import Item, Point, PointType
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.frames import FRAME_BYTES
from sqlbak.vault.layout import running_key
from sqlbak.vault.lineages import record_forks
from sqlbak.vault.manifest import Manifest, decode_manifest, encode_manifest
from sqlbak.vault.names import parse_name
from sqlbak.vault.payload import VOLUME_BYTES, PayloadWriter
from sqlbak.vault.running import (
    RunningRecord,
    has_manifest,
    is_running,
    publish,
    put_commit_verdict,
    remove_running,
    write_running,
)
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.vault_keys import VaultKeys
from sqlbak.vault.wrapped_key import about_point

__all__ = ["PointWriter"]


class PointWriter:
    """Writes one recovery point of ``item``. Leaving the ``with`` block without a commit removes
    whatever was written.

    ``sink`` is where the engine's payload goes. The sweep (vault/sweep.py) settles what a crash
    leaves, at whatever call it happens. ``keys`` are those of the vault; with a current one, what
    is written is encrypted.
    """

    def __init__(
        self,
        store: ObjectStore,
        item: Item,
        record: RunningRecord,
        keys: VaultKeys,
        *,
        progress: Progress = NO_PROGRESS,
        stop: StopSignal = NEVER,
        volume_bytes: int = VOLUME_BYTES,
        frame_bytes: int = FRAME_BYTES,
    ) -> None:
        self._store = store
        self._item = item
        self._record = record
        self._has_begun = False
        self._is_decided = False
        self._key = keys.new(about_point(item.id, record.point_id))
        self.sink = PayloadWriter(
            store,
            item.id,
            record.point_id,
            volume_bytes=volume_bytes,
            frame_bytes=frame_bytes,
            progress=progress,
            stop=stop,
            witness=running_key(item.id, record.job_id),
            data_key=None if self._key is None else self._key.data_key,
        )

    @property
    def point_id(self) -> str:
        """The id that the point will have."""
        return self._record.point_id

    def __enter__(self) -> Self:
        """Write the running record; PreconditionFailed when the job id was used before."""
        try:
            write_running(self._store, self._item.id, self._record)
        except BaseException:
            self.sink.close()
            raise
        self._has_begun = True
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if self._is_decided:
            return
        if not isinstance(value, BaseException):
            self.abort()
            return
        try:
            self.abort()
        except SqlbakError as error:
            # The first error says what went wrong; the sweep cleans up later.
            value.add_note(f"what was written could not be removed: {error}")

    def commit(
        self,
        result: BackupResult,
        *,
        base_id: str | None = None,
        is_copy_only: bool = False,
        slot: datetime | None = None,
        label: str | None = None,
        fence: Callable[[], None],
    ) -> Point:
        """Seal the payload and make the recovery point. ``fence`` (the lease's ``check``) is
        called right before the decision is written; whatever it raises stops the commit.

        LeaseLost when the job was declared dead by a sweep: there is no point then, and the sweep
        removes the payload. Any other error leaves open whether there is a point when it came
        after the decision was sent; the sweep settles it, and the next run sees the outcome.
        """
        if not self._has_begun or self._is_decided:
            raise ValueError("a point is committed once, within its with block")
        if (base_id is not None) != (result.type is PointType.DIFFERENTIAL):
            raise ValueError("a differential, and nothing else, has a base")
        item_id, job_id = self._item.id, self._record.job_id
        payload = self.sink.seal()
        point = Point(
            id=self.point_id,
            type=result.type,
            lineage=result.lineage,
            first_lsn=result.first_lsn,
            last_lsn=result.last_lsn,
            started_at=result.started_at,
            finished_at=result.finished_at,
            reachable_from=result.reachable_from,
            covers_until=result.covers_until,
            first_lineage=result.first_lineage,
            base_id=base_id,
            is_copy_only=is_copy_only,
            has_bulk_logged=result.has_bulk_logged,
            size_bytes=payload.stored_bytes,
        )
        manifest = Manifest(
            point=point,
            item=self._item,
            payload=payload,
            sqlbak_version=sqlbak.__version__,
            slot=slot,
            label=label,
            facts=result.facts,
            wrapped_key=None if self._key is None else self._key.wrapped,
        )
        # Everything that can be refused is refused before anything is decided.
        data = encode_manifest(manifest, None if self._key is None else self._key.data_key)
        if decode_manifest(manifest.name, data).point != parse_name(manifest.name):
            raise ValueError(f"the manifest of {point} does not say what its name says")
        vault_key = None if self._key is None else self._key.vault_key
        record_forks(self._store, item_id, result.forks, result.histories, vault_key)
        fence()

        self._is_decided = True
        verdict = put_commit_verdict(self._store, item_id, job_id, data)
        if verdict.manifest is None:
            raise self._declared_dead()
        if is_running(self._store, item_id, job_id):
            publish(self._store, item_id, data)
        elif not has_manifest(self._store, item_id, self.point_id):
            # A sweep had come to its end before; our verdict means nothing any more.
            remove_running(self._store, item_id, job_id)
            raise self._declared_dead()
        remove_running(self._store, item_id, job_id)
        return point

    def abort(self) -> None:
        """Remove whatever was written: payload first, running record last. After a commit was
        sent nothing is removed; that is the sweep's to settle. Payload that is kept for a later
        run stays, and its running record with it."""
        if self._is_decided:
            self.sink.close()
            return
        self._is_decided = True
        if self._has_begun and not self.sink.is_kept:
            self.sink.abort()
            remove_running(self._store, self._item.id, self._record.job_id)
        else:
            self.sink.close()

    def _declared_dead(self) -> LeaseLost:
        return LeaseLost(
            f"the job {self._record.job_id} was declared dead after it had lost its lease; its "
            f"recovery point {self.point_id} was not committed",
            hint="the next run starts anew; look why the lease could not be renewed",
        )
