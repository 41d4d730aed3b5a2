"""What an endpoint that hangs holds of a lane that others need."""

from __future__ import annotations

import asyncio

from delivery.gates import Refused
from tests.unit.delivery.test_gates import Clock, admitted, gate


async def test_an_endpoint_that_begins_to_hang_leaves_most_of_its_lane_to_others_after_a_moment() -> None:
    """It was quick until now, so all that comes at once is let in."""
    clock = Clock()
    one = gate(clock, endpoint_wait_s=0.8, in_flight_per_partition_max=400)
    under_way = [await admitted(one) for _ in range(4)]
    for each in under_way:
        one.begin(each)
    waiting = [asyncio.create_task(one.enter(again=False)) for _ in range(396)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sum(not task.done() for task in waiting) + 4 == 225, "three quarters of three hundred; the last quarter is for what comes back"
    began_s = asyncio.get_running_loop().time()
    done, left = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    while len(left) + 4 > 75:
        more, left = await asyncio.wait(left, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        done |= more
    assert {task.result() for task in done} == {Refused("full")}
    assert asyncio.get_running_loop().time() - began_s < 0.8, "long before those that may wait"
    assert len(left) + 4 == 75
    for each in under_way:
        one.leave(each, None)
    for task in left:
        task.cancel()
    await asyncio.wait(left)
