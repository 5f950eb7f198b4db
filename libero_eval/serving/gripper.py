"""Does a policy give the gripper as LIBERO wants it (-1 open, +1 close), or as data sets store it?

Many policies answer with 0..1 (1 open), as RLDS and OpenVLA's training data have it. LIBERO takes
every positive number for "close", so such a policy would never open its hand again.
"""

import numpy as np

OPEN_BELOW = -0.25  # a command this low means "open" in LIBERO's convention: all is well
NEAR = 0.1  # of an end
LEAST = 8  # commands before two ends are believed
DIFFERENT = 16  # unequal commands before values in between are believed
SPREAD = 0.5
MOST_KEPT = 2 * DIFFERENT  # distinct commands


class GripperRange:
    """Watches the gripper's commands, answer by answer, until their convention is known."""

    def __init__(self) -> None:
        self._seen = np.zeros(0)  # distinct commands, a few that tell as much as all of them
        self._count = 0  # of all commands
        self._is_known = False

    def fault(self, commands: np.ndarray) -> str | None:
        """What is wrong with all commands so far, float (N,) of one more answer; None if nothing.

        A fault stays: the convention of a server does not change.
        """
        if self._is_known:
            return None
        if commands.min() < OPEN_BELOW:
            self._seen, self._is_known = np.zeros(0), True
            return None
        self._count += len(commands)
        distinct = np.unique(np.concatenate([self._seen, commands.astype(np.float64)]))
        if len(distinct) > MOST_KEPT:
            distinct = np.concatenate([distinct[: MOST_KEPT - 1], distinct[-1:]])
        self._seen = distinct
        return unit_range(distinct, self._count)


def unit_range(values: np.ndarray, count: int | None = None) -> str | None:
    """The fault of commands (N,) that look like 0..1; None if they do not.

    count: how many commands these are the distinct ones of; none given: N. Two ends, 0 and 1, are
    believed at once; values in between, as of a sigmoid, after more of them.
    """
    if values.min() < OPEN_BELOW:
        return None
    at_zero, at_one = np.abs(values) <= NEAR, values >= 1 - NEAR
    count = len(values) if count is None else count
    two_ends = count >= LEAST and at_zero.any() and at_one.any()
    two_ends = two_ends and bool((at_zero | at_one).all())
    between = len(np.unique(values)) >= DIFFERENT and np.ptp(values) > SPREAD
    if not (two_ends or between):
        return None
    return (
        f"a gripper in [{values.min():.2f}, {values.max():.2f}], never negative in {count} "
        "actions: LIBERO's is -1 open, +1 close; where 1 means open, send 1 - 2 * gripper, where 1 "
        "means closed, 2 * gripper - 1"
    )
