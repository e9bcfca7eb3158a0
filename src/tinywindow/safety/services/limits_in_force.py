"""Which limits are in force: those in the store, so that every process enforces the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from tinywindow.safety.config import PositionLimits
from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.limits import LimitSet
from tinywindow.safety.domain.money import plain
from tinywindow.safety.errors import LimitsDiffer, StoreUnavailable
from tinywindow.safety.ports import Store, Tx

__all__ = ["LIMITS_DOCUMENT", "agree_on_limits", "limits_of"]

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
        StoreUnavailable: what the store holds as limits cannot be read.
    """
    wanted = (PositionLimits() if given is None else given).to_limit_set()
    text = wanted.to_text()
    row_id = new_id()

    def script(tx: Tx) -> LimitSet:
        standing = tx.document(LIMITS_DOCUMENT)
        if standing == text:
            return wanted
        if standing is not None and given is None:
            return limits_of(standing)
        if standing is not None and not change:
            raise LimitsDiffer(_differences(limits_of(standing), wanted))
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
        return limits_of(standing)
    return await store.transact(script)


def limits_of(text: str) -> LimitSet:
    """Read the limits that the store holds.

    Raises:
        StoreUnavailable: they cannot be read, so nobody knows what is allowed.
    """
    try:
        return LimitSet.from_text(text)
    except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError) as error:
        raise StoreUnavailable(f"the limits in the store cannot be read: {error!r}") from error


def _differences(standing: LimitSet, wanted: LimitSet) -> list[str]:
    sentences = [
        f"LIMITS_DIFFER: {name} is {_shown(getattr(standing, name))} in the store, "
        f"{_shown(getattr(wanted, name))} here"
        for name in LimitSet.__dataclass_fields__
        if getattr(standing, name) != getattr(wanted, name)
    ]
    return [*sentences, "adopt the store's limits, or ask to change them"]


def _shown(value: object) -> str:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, frozenset):
        return ", ".join(sorted(map(str, value)))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_shown(each)}" for name, each in sorted(value.items())) or "none"
    return str(value)
