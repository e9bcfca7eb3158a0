"""Which limits are in force: those in the store, so that every process enforces the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from tinywindow.safety.config import PositionLimits
from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.limits import LimitSet
from tinywindow.safety.errors import LimitsDiffer
from tinywindow.safety.ports import Store, Tx

__all__ = ["LIMITS_DOCUMENT", "agree_on_limits"]

LIMITS_DOCUMENT: Final = "limits"


async def agree_on_limits(
    store: Store,
    given: PositionLimits | None,
    *,
    now: datetime,
    change: bool,
    new_id: Callable[[], str],
) -> LimitSet:
    """Put limits in force on a fresh store, adopt the store's, or refuse to differ.

    Without `given` limits the store's are adopted. With `change`, other limits than the store's
    are put in force and the change is audited.

    Raises:
        LimitsDiffer: the store holds other limits than `given`, and `change` is not asked for.
    """
    wanted = (PositionLimits() if given is None else given).to_limit_set()
    text = wanted.to_text()
    row_id = new_id()

    def script(tx: Tx) -> LimitSet:
        standing = tx.document(LIMITS_DOCUMENT)
        if standing == text:
            return wanted
        if standing is not None and given is None:
            return LimitSet.from_text(standing)
        if standing is not None and not change:
            raise LimitsDiffer(_differences(LimitSet.from_text(standing), wanted))
        tx.put_document(LIMITS_DOCUMENT, text)
        tx.audit(
            AuditDraft(
                row_id,
                now,
                EventType.CONFIG_CHANGED,
                "position-limits",
                {"what": "limits", "before": standing, "after": text},
            )
        )
        return wanted

    standing = await store.read(lambda tx: tx.document(LIMITS_DOCUMENT))
    if standing == text:
        return wanted
    if standing is not None and given is None:
        return LimitSet.from_text(standing)
    return await store.transact(script)


def _differences(standing: LimitSet, wanted: LimitSet) -> list[str]:
    sentences = [
        f"LIMITS_DIFFER: {name} is {getattr(standing, name)} in the store, "
        f"{getattr(wanted, name)} here"
        for name in LimitSet.__dataclass_fields__
        if getattr(standing, name) != getattr(wanted, name)
    ]
    return [*sentences, "adopt the store's limits, or ask to change them"]
