"""The circuit breaker against a plain model under a controlled clock. The model works the rules out of every outcome so far."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from delivery.breaker import WINDOW_PARTS, Breaker, Permit, Rules

RULES = Rules(failures=4, ratio=0.7, attempts_min=6, window_ms=12_000, open_ms=(5_000, 30_000, 120_000))


class Model:
    """All outcomes since it last closed or opened, with their times. `probes`: how many failed in this opening."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[int, bool]] = []
        self.opened_until: int | None = None
        self.failed_probes = 0
        self.probing = False

    def state(self, now: int) -> str:
        if self.opened_until is None:
            return "closed"
        return "open" if now < self.opened_until else "half open"

    def success(self, now: int) -> None:
        if self.opened_until is not None:
            self.__init__()  # type: ignore[misc]
        self.outcomes.append((now, True))

    def failure(self, now: int, permit: Permit) -> None:
        if self.opened_until is not None:
            if permit == "probe" and self.probing:
                self.probing = False
                self.failed_probes += 1
                self.opened_until = now + RULES.open_ms[min(self.failed_probes, 2)]
            return
        self.outcomes.append((now, False))
        last = [ok for _, ok in self.outcomes][-RULES.failures :]
        part = RULES.window_ms // WINDOW_PARTS
        recent = [ok for at, ok in self.outcomes if at // part > now // part - WINDOW_PARTS]
        in_a_row = len(last) == RULES.failures and not any(last)
        too_many = len(recent) >= RULES.attempts_min and recent.count(False) / len(recent) >= RULES.ratio
        if in_a_row or too_many:
            self.__init__()  # type: ignore[misc]
            self.opened_until = now + RULES.open_ms[0]


class BreakerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000
        self.breaker = Breaker(RULES)
        self.model = Model()
        self.under_way: list[Permit] = []

    @rule(ms=st.sampled_from([0, 1, 700, 1_000, 4_999, 5_000, 12_000, 30_000, 120_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @rule()
    def asks(self) -> None:
        state = self.model.state(self.now)
        refused = self.breaker.refused_until(self.now)
        permit = self.breaker.begin(self.now)
        assert (refused is None) == (permit is not None)
        if state == "closed":
            assert permit == "attempt"
        elif state == "open":
            assert permit is None
            assert refused == self.model.opened_until
        elif self.model.probing:
            assert permit is None
            assert refused is not None
            assert refused > self.now
        else:
            assert permit == "probe"
            self.model.probing = True
        if permit is not None:
            self.under_way.append(permit)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=st.sampled_from(["success", "failure", "failure", "nothing"]))
    def one_ends(self, data: st.DataObject, outcome: str) -> None:
        permit = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        was_open = self.model.opened_until is not None
        if outcome == "success":
            assert self.breaker.succeeded(self.now) == was_open
            self.model.success(self.now)
        elif outcome == "failure":
            opened = self.breaker.failed(self.now, permit)
            self.model.failure(self.now, permit)
            assert opened == (not was_open and self.model.opened_until is not None)
        else:
            self.breaker.abandoned(permit)
            if permit == "probe":
                self.model.probing = False

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.closed == (self.model.opened_until is None)


def test_the_breaker_does_what_its_rules_say() -> None:
    run_state_machine_as_test(
        BreakerMachine, settings=settings(max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))
    )


def test_failures_in_a_row_open_it_each_failed_probe_for_longer_and_one_success_closes_it() -> None:
    breaker, now = Breaker(RULES), 0
    for _ in range(RULES.failures):
        assert breaker.begin(now) == "attempt"
        breaker.failed(now, "attempt")
    for open_ms in (5_000, 30_000, 120_000, 120_000):
        assert breaker.refused_until(now) == now + open_ms
        now += open_ms
        assert breaker.begin(now) == "probe"
        assert breaker.begin(now) is None
        breaker.failed(now, "probe")
    now += 120_000
    assert breaker.begin(now) == "probe"
    assert breaker.succeeded(now)
    assert breaker.begin(now) == "attempt"


def test_a_part_of_failures_opens_it_although_successes_lie_between() -> None:
    breaker = Breaker(Rules(failures=100, ratio=0.7, attempts_min=10, window_ms=60_000, open_ms=(5_000,)))
    opened = []
    for number in range(10):
        if number in (2, 5, 8):
            breaker.succeeded(number)
        else:
            opened.append(breaker.failed(number, "attempt"))
    assert opened == [False] * 6 + [True]
