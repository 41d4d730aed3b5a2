"""JSON Merge Patch (RFC 7396): what a patch leaves out stays, null takes away, objects are merged member by member. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merge(target: Any, patch: Any) -> Any:
    """`target` with `patch` applied, as RFC 7396 section 2 has it; neither is changed. As deep as the patch, so read it with a limit."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged
