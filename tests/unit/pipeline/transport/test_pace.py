"""How far apart the reader's cycles are."""

from __future__ import annotations

import pytest

from headrace.pipeline.transport.pace import BUSY, CALM, HEADROOM, LARGE_BYTES, STRETCH, WINDOW_S, Pace

ROOM = 1 << 23


def after(pace: Pace, *shares: float, moved: tuple[int, int] = (1 << 10, ROOM)) -> list[int]:
    """Intervals after windows in which the busier of two stages took these shares of a CPU."""
    now_s, cpu_ns, found = 1.0, 0, []
    pace.look(now_s, lambda: (0, 0), ())
    for share in shares:
        now_s += WINDOW_S * 1.01
        cpu_ns += int(share * WINDOW_S * 1.01 * 1e9) + 1
        pace.look(now_s, lambda taken=cpu_ns: (taken // 2, taken), [moved])
        found.append(pace.intervals)
    return found


def test_while_a_stage_is_busy_cycles_are_further_apart() -> None:
    assert after(Pace(), BUSY - 0.01, BUSY, CALM, CALM - 0.01, BUSY - 0.01) == [1, STRETCH, STRETCH, 1, 1]


@pytest.mark.parametrize(("moved", "expected"), [(LARGE_BYTES - 1, 1), (LARGE_BYTES, STRETCH)])
def test_in_a_flood_cycles_are_further_apart_even_if_nobody_is_busy(moved: int, expected: int) -> None:
    pace = Pace()
    assert after(pace, 0.0, moved=(moved, ROOM)) == [expected]
    # what a longer cycle moves is more, the rate is the same: so is the pace
    pace.look(1.0, tuple, [(moved * expected, ROOM)])
    assert pace.intervals == expected


def test_a_moment_decides_nothing() -> None:
    pace = Pace()
    assert after(pace, 0.1) == [1]
    pace.look(1.0 + 1.02 * WINDOW_S, lambda: (10**9, 10**9), ())
    assert pace.intervals == 1


@pytest.mark.parametrize(("moved", "expected"), [(1, STRETCH), (0, 1)])
def test_a_longer_cycle_must_fit_into_the_perf_ring(moved: int, expected: int) -> None:
    """What a longer cycle moves is more, the rate is the same: so is the pace."""
    most = ROOM // HEADROOM // STRETCH
    pace = Pace()
    assert after(pace, 1.0, moved=(most + 1 - moved, ROOM)) == [expected]
    pace.look(1.0, tuple, [((most + 1 - moved) * pace.intervals, ROOM)])
    assert pace.intervals == expected
