"""The sliding window, as plain as can be."""

from __future__ import annotations

BUCKET_MS = 1_000


class Model:
    """Every admission, looked at again for each question."""

    def __init__(self, span: int) -> None:
        self.span = span
        self.admitted: list[tuple[int, int]] = []

    def take(self, now_ms: int, limit: int, asked: int) -> tuple[int, int, int]:
        bucket = now_ms // BUCKET_MS
        kept = [(at, count) for at, count in self.admitted if at // BUCKET_MS >= bucket - self.span]
        granted = min(asked, limit - sum(count for _, count in kept))
        if granted:
            self.admitted.append((now_ms, granted))
            kept.append((now_ms, granted))
        oldest = min((at // BUCKET_MS for at, _ in kept), default=bucket)
        return granted, limit - sum(count for _, count in kept), (oldest + self.span + 1) * BUCKET_MS - now_ms

    def most_in_any_window(self) -> int:
        window_ms = self.span * BUCKET_MS
        return max((sum(n for at, n in self.admitted if end - window_ms < at <= end) for end, _ in self.admitted), default=0)

    def copy(self) -> Model:
        copy = Model(self.span)
        copy.admitted = list(self.admitted)
        return copy
