"""Does this machine render, and with the versions that scores were measured with?"""

import re
from dataclasses import dataclass
from typing import Literal

from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, warned
from libero_eval.env.manifest import ABSENT


@dataclass(frozen=True, kw_only=True)
class Need:
    """Which versions of a package are good, and why others are not.

    exactly: these and no others; least: this one or a later one.
    """

    package: str
    exactly: tuple[str, ...] = ()
    least: str = ""
    otherwise: Literal["warn", "fail"] = "fail"
    reason: str

    @property
    def wanted(self) -> str:
        """In words."""
        return " or ".join(self.exactly) or f"{self.least} or later"

    def suits(self, version: str) -> bool:
        """Whether a version is good."""
        if self.exactly:
            return version in self.exactly
        return version != ABSENT and numbers(version) >= numbers(self.least)


NEEDS = (
    Need(
        package="mujoco", exactly=("3.3.2",),
        reason="3.3.3 and later shade floors darker (LIBERO issue 88: 88 % became 69 %), 3.4 and "
        "later touch differently (lerobot issue 4390: 98 % became 12 %), earlier ones are untested",
    ),
    Need(
        package="robosuite", exactly=("1.4.0", "1.4.1"),
        reason="1.5 has other controllers, observations and gripper details",
    ),
    Need(package="hf-libero", least="0.1.4", reason="earlier ones do not run on Python 3.10"),
    Need(
        package="bddl", exactly=("1.0.1",), otherwise="warn",
        reason="others may read task files differently",
    ),
    Need(
        package="transformers", least="5.0",
        reason="4.50 and later lose the image in generation (openvla issue 346)",
    ),
    Need(package="torch", least="2.4", reason="earlier ones lack the attention used here"),
    Need(
        package="timm", least="1.0.11",
        reason="earlier ones cannot build towers without weights",
    ),
    Need(package="numpy", least="1.26", reason="earlier ones are untested"),
)  # fmt: skip


def numbers(version: str) -> tuple[int, ...]:
    """3.10.1rc2 -> (3, 10, 1)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def gl_backend(context: DiagnosticContext) -> Finding:
    """A backend that renders; UserError with the missing packages becomes the finding."""
    return passed("EGL or OSMesa renders", context.backend)


def versions(context: DiagnosticContext) -> Finding:
    """Every package of the table in a good version."""
    found = context.manifest["packages"]
    wrong = [n for n in NEEDS if not n.suits(found.get(n.package, ABSENT))]
    if not wrong:
        shown = ", ".join(f"{n.package} {found[n.package]}" for n in NEEDS[:2])
        return passed(f"{len(NEEDS)} packages as tested", shown)
    wrong.sort(key=lambda n: n.otherwise)  # fail before warn
    expected = ", ".join(f"{n.package} {n.wanted}" for n in wrong)
    came = ", ".join(f"{n.package} {found.get(n.package, ABSENT)}" for n in wrong)
    pins = " ".join(f"'{n.package}{_pin(n)}'" for n in wrong)
    advice = f"pip install {pins}; " + "; ".join(f"{n.package}: {n.reason}" for n in wrong)
    finding = failed if any(n.otherwise == "fail" for n in wrong) else warned
    return finding(expected, came, advice)


def _pin(need: Need) -> str:
    return f"=={need.exactly[0]}" if need.exactly else f">={need.least}"
