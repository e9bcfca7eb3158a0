"""Leases, closing progress and small documents."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, select

from tinywindow.safety.domain.records import CloseRecord, Lease
from tinywindow.safety.stores import schema
from tinywindow.safety.stores.sql.engine import Engine
from tinywindow.safety.stores.sql.part import Part, as_int, first
from tinywindow.safety.stores.sql.rows import Writer

__all__ = ["ClosingPart", "read_documents"]

_LEASES: Final = Writer.of(schema.leases, key=("name",))
_CLOSES: Final = Writer.of(schema.close_progress, key=("venue",))
_DOCUMENTS: Final = Writer.of(schema.documents, key=("key",))
_LEASE: Final = select(*schema.leases.columns).where(schema.leases.c.name == bindparam("p_name"))
_CLOSE_RECORDS: Final = select(*schema.close_progress.columns).order_by(
    schema.close_progress.c.venue
)
_DOCUMENT: Final = select(schema.documents.c.value).where(
    schema.documents.c.key == bindparam("p_key")
)
_DOCUMENTS_SINCE: Final = select(schema.documents.c.key, schema.documents.c.value).where(
    schema.documents.c.version > bindparam("p_since")
)


def read_documents(db: Engine, *, since: int | None) -> tuple[tuple[str, str], ...]:
    """The documents that changed after version `since`; all when it is None."""
    rows = db.rows(_DOCUMENTS_SINCE, {"p_since": -1 if since is None else since})
    return tuple((str(key), str(value)) for key, value in rows)


class ClosingPart(Part):
    """The part of a transaction that holds leases, closing progress and documents."""

    def lease(self, name: str) -> Lease | None:
        """A lease by its name."""
        row = first(self._db.rows(_LEASE, {"p_name": name}))
        if row is None:
            return None
        return Lease(str(row[0]), str(row[1]), as_int(row[2]), as_int(row[3]))

    def put_lease(self, lease: Lease) -> None:
        """Insert or replace a lease."""
        _LEASES.put(
            self._db,
            {
                "name": lease.name,
                "owner": lease.owner,
                "fence": lease.fence,
                "heartbeat_ms": lease.heartbeat_ms,
            },
        )

    def close_records(self) -> tuple[CloseRecord, ...]:
        """How far the closing is, one record a venue."""
        rows = self._db.rows(_CLOSE_RECORDS)
        return tuple(CloseRecord(str(r[0]), str(r[1]), str(r[2]), as_int(r[3])) for r in rows)

    def put_close_record(self, record: CloseRecord) -> None:
        """Insert or replace a venue's closing record."""
        _CLOSES.put(
            self._db,
            {
                "venue": record.venue,
                "state": record.state,
                "report": record.report,
                "updated_ms": record.updated_ms,
            },
        )

    def document(self, key: str) -> str | None:
        """A small JSON text by its key, own writes included."""
        row = first(self._db.rows(_DOCUMENT, {"p_key": key}))
        return None if row is None else str(row[0])

    def put_document(self, key: str, text: str) -> None:
        """Insert or replace a small JSON text."""
        _DOCUMENTS.put(self._db, {"key": key, "value": text, "version": self._touch()})
        self._pending.documents[key] = text
