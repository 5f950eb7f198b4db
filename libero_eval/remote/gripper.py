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


class GripperRange:
    """Watches the gripper's commands, answer by answer, until their convention is known."""

    def __init__(self) -> None:
        self._seen: list[np.ndarray] = []
        self._is_known = False

    def fault(self, commands: np.ndarray) -> str | None:
        """What is wrong with all commands so far, float (N,) of one more answer; None if nothing.

        A fault stays: the convention of a server does not change.
        """
        if self._is_known:
            return None
        if commands.min() < OPEN_BELOW:
            self._seen, self._is_known = [], True
            return None
        self._seen.append(commands.astype(np.float64))
        return unit_range(np.concatenate(self._seen))


def unit_range(values: np.ndarray) -> str | None:
    """The fault of commands (N,) that look like 0..1; None if they do not.

    Two ends, 0 and 1, are believed at once; values in between, as of a sigmoid, after more of them.
    """
    if values.min() < OPEN_BELOW:
        return None
    at_zero, at_one = np.abs(values) <= NEAR, values >= 1 - NEAR
    two_ends = len(values) >= LEAST and at_zero.any() and at_one.any()
    two_ends = two_ends and bool((at_zero | at_one).all())
    between = len(np.unique(values)) >= DIFFERENT and np.ptp(values) > SPREAD
    if not (two_ends or between):
        return None
    return (
        f"a gripper in [{values.min():.2f}, {values.max():.2f}], never negative in {len(values)} "
        "actions: LIBERO's is -1 open, +1 close; where 1 means open, send 1 - 2 * gripper, where 1 "
        "means closed, 2 * gripper - 1"
    )
