"""All folds, as the composition root hands them to the `project` processor."""

from __future__ import annotations

from typing import Final

from projections import acks, attempts, duplicates, inbox
from projections.fold import Fold

FOLDS: Final[tuple[Fold, ...]] = (inbox.FOLD, acks.FOLD, attempts.FOLD, duplicates.FOLD)
