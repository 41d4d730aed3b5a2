"""All folds, as the composition root hands them to the `project` processor, and the groups in which they can be rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from projections import acks, attempts, duplicates, inbox, lifecycle
from projections.fold import Fold, Table

#: What is to be left out comes first: a rebuild loads the topics in this order.
FOLDS: Final[tuple[Fold, ...]] = (lifecycle.FOLD, inbox.FOLD, acks.FOLD, attempts.FOLD, duplicates.FOLD)

#: What `triggers rebuild` takes. Folds whose rows decide about each other's (acks, unacked) belong together, and
#: what operators decided about events belongs to each.
TARGETS: Final[Mapping[str, tuple[Fold, ...]]] = {
    "inbox": (lifecycle.FOLD, inbox.FOLD, acks.FOLD, duplicates.FOLD),
    "attempts": (lifecycle.FOLD, attempts.FOLD),
    "all": FOLDS,
}


def tables_of(folds: Iterable[Fold]) -> tuple[Table, ...]:
    """Every table these folds write."""
    return tuple(table for fold in folds for table in fold.tables)
