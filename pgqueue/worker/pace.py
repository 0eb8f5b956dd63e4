"""How many claimed jobs a worker may hold, so that short jobs come in hundreds and long ones one by one."""

AHEAD_SECONDS = 0.05
"""Work that may wait in memory: what the hands finish in this time, so nothing is held back for longer."""

MOST_AHEAD = 1000
_WEIGHT = 0.05


class Pace:
    """Follows the duration of jobs, in seconds, as a moving average."""

    def __init__(self, hands: int) -> None:
        self._hands = hands
        self._average: float | None = None

    def record(self, seconds: float) -> None:
        """A slow job counts at once, a fast one little by little: holding too few jobs costs less than too many."""
        if self._average is None or seconds > self._average:
            self._average = seconds
        else:
            self._average += (seconds - self._average) * _WEIGHT

    def hold_at_most(self) -> int:
        if self._average is None or self._average > AHEAD_SECONDS:
            return self._hands
        return self._hands + min(MOST_AHEAD, int(self._hands * AHEAD_SECONDS / max(self._average, 1e-6)))

    def claim_at_most(self) -> int:
        """Half, so that the hands have the other half while the database is asked."""
        return max(self._hands, self.hold_at_most() // 2)
