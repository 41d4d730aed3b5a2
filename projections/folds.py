"""All folds, as the composition root hands them to the `project` processor, and the groups in which they can be rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from projections import acks, attempts, duplicates, inbox
from projections.fold import Fold, Table

FOLDS: Final[tuple[Fold, ...]] = (inbox.FOLD, acks.FOLD, attempts.FOLD, duplicates.FOLD)

#: What `triggers rebuild` takes. Folds whose rows decide about each other's (acks, unacked) belong together.
TARGETS: Final[Mapping[str, tuple[Fold, ...]]] = {
    "inbox": (inbox.FOLD, acks.FOLD, duplicates.FOLD),
    "attempts": (attempts.FOLD,),
    "all": FOLDS,
}


def tables_of(folds: Iterable[Fold]) -> tuple[Table, ...]:
    """Every table these folds write."""
    return tuple(table for fold in folds for table in fold.tables)
