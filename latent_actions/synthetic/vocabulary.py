"""The list of actions: words, objects, opposites; and the families of actions that follow one
another.
"""

from dataclasses import dataclass

from latent_actions.synthetic.objects import KINDS
from latent_actions.synthetic.plans import fixtures, kitchen, table
from latent_actions.synthetic.plans.setting import Plan


@dataclass(frozen=True)
class Action:
    """One action. third_person opens a description ("C picks the red can"); `tail` ends it, with
    {partner} filled in. template is SSV2's. opposite undoes it. held: the hand holds the object at
    its start."""

    name: str
    third_person: str
    template: str
    opposite: str | None
    plan: Plan
    tails: tuple[str, ...] = ("", " on the table")
    held: bool = False
    stacked: bool = False  # the object stands on its partner at the start
    opened: bool = False  # the fixture is open at the start
    repeated: bool = False  # has cycles, takes longer
    partner_first: bool = False  # the template names the partner before the object
    arrives: bool = False  # the head turns to the place at the start
    leaves: bool = False  # the head turns away from it at the end
    two_handed: bool = False  # the other hand is at it too


@dataclass(frozen=True)
class Family:
    """Actions on one object in one place. chains: orders in which they are performed; kinds: of the
    object; partners: of a second object that stands by; kitchen: done in kitchens alone."""

    name: str
    chains: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]
    partners: tuple[str, ...] = ()
    kitchen: bool = False


_LIST = (
    Action("pick", "picks", "Picking [something] up", "place", table.pick,
           (" from the table", ""), arrives=True, leaves=True),
    Action("place", "places", "Putting [something] on a surface", "pick", table.place,
           (" on the table", " down"), held=True, arrives=True),
    Action("lift", "lifts", "Lifting [something] up", "lower", table.lift,
           ("", " with one hand")),
    Action("lower", "lowers", "Lowering [something]", "lift", table.lower,
           (" to the table", " onto the table"), held=True),
    Action("push", "pushes", "Pushing [something] away", "pull", table.push, ("", " forward")),
    Action("pull", "pulls", "Pulling [something] closer", "push", table.pull,
           ("", " towards the body")),
    Action("slide_left", "slides", "Pushing [something] from right to left", "slide_right",
           table.slide_left, (" to the left",)),
    Action("slide_right", "slides", "Pushing [something] from left to right", "slide_left",
           table.slide_right, (" to the right",)),
    Action("open", "opens", "Opening [something]", "close", fixtures.open_, ("", " with one hand"),
           arrives=True),
    Action("close", "closes", "Closing [something]", "open", fixtures.close, ("", " with one hand"),
           opened=True, leaves=True),
    Action("twist_right", "screws", "Twisting [something] clockwise", "twist_left", fixtures.screw,
           (" clockwise", "")),
    Action("twist_left", "unscrews", "Twisting [something] counterclockwise", "twist_right",
           fixtures.unscrew, (" counterclockwise", "")),
    Action("pour", "pours", "Pouring [something] into [something]", None, table.pour,
           (" into the {partner}",), held=True),
    Action("shake", "shakes", "Shaking [something]", None, table.shake, ("", " in the air"),
           held=True, repeated=True),
    Action("press", "presses", "Pressing [something]", None, fixtures.press, ("", " with the palm")),
    Action("tap", "taps", "Tapping [something]", None, table.tap, ("", " with a finger"),
           repeated=True),
    Action("stack", "stacks", "Stacking [something] on [something]", "unstack", table.stack,
           (" on the {partner}",), held=True),
    Action("unstack", "unstacks", "Taking [something] off [something]", "stack", table.unstack,
           (" from the {partner}",), stacked=True, arrives=True),
    Action("stir", "stirs", "Stirring [something] with [something]", None, table.stir,
           (" in the {partner}",), held=True, repeated=True, partner_first=True),
    Action("wipe", "wipes", "Wiping [something] with [something]", None, table.wipe,
           (" over the {partner}",), held=True, repeated=True, partner_first=True),
    Action("cut", "cuts", "Cutting [something] with [something]", None, kitchen.cut,
           (" through the {partner}",), held=True, partner_first=True, two_handed=True),
    Action("slice", "slices", "Slicing [something] with [something]", None, kitchen.slice_,
           (" over the {partner}",), held=True, repeated=True, partner_first=True, two_handed=True),
    Action("wash", "washes", "Washing [something] in [something]", None, kitchen.wash,
           (" in the {partner}",), held=True, repeated=True, two_handed=True),
    Action("hold", "holds", "Holding [something]", None, kitchen.hold, ("", " in the hand"),
           held=True, two_handed=True),
    Action("add", "adds", "Dropping [something] into [something]", None, kitchen.add,
           (" to the {partner}",), held=True, arrives=True),
)  # fmt: skip
ACTIONS: dict[str, Action] = {action.name: action for action in _LIST}

_FAMILIES = (
    Family("pick_place", (("pick", "place"), ("place", "pick"), ("pick",), ("place",)),
           ("can", "bottle", "mug", "jar", "carton", "block", "ball")),
    Family("lift_lower", (("lift", "lower"), ("lower", "lift")),
           ("carton", "block", "brick", "can", "jar")),
    Family("push_pull", (("push", "pull"), ("pull", "push"), ("push",), ("pull",)),
           ("carton", "can", "mug", "brick", "jar", "block")),
    Family("slide", (("slide_left", "slide_right"), ("slide_right", "slide_left")),
           ("block", "brick", "carton", "mug", "can")),
    Family("open_close", (("open", "close"), ("close", "open"), ("open",), ("close",)),
           ("drawer", "chest")),
    Family("twist", (("twist_left", "twist_right"), ("twist_right", "twist_left")),
           ("knob", "lid")),
    Family("pour", (("pour",),), ("bottle", "mug", "can"), ("bowl",)),
    Family("shake", (("shake",),), ("bottle", "can", "jar")),
    Family("press", (("press",),), ("button",)),
    Family("tap", (("tap",),), ("carton", "jar", "can", "brick")),
    Family("stack", (("stack", "unstack"), ("unstack", "stack")), ("block", "can", "jar"),
           ("brick",)),
    Family("stir", (("stir",),), ("spoon",), ("bowl",)),
    Family("wipe", (("wipe",),), ("sponge",), ("table",)),
    Family("cut", (("cut",), ("cut", "cut")), ("knife",), ("cucumber",), kitchen=True),
    Family("slice", (("slice",),), ("knife",), ("cucumber",), kitchen=True),
    Family("wash", (("wash",),), ("mug", "ball", "block", "can"), ("bowl",), kitchen=True),
    Family("hold", (("hold",),), ("can", "mug", "carton", "block", "ball", "bottle"), kitchen=True),
    Family("add", (("add",),), ("ball", "block"), ("bowl",), kitchen=True),
    Family("door", (("open", "close"), ("close", "open"), ("open",), ("close",)), ("cabinet",),
           kitchen=True),
)  # fmt: skip
FAMILIES: dict[str, Family] = {family.name: family for family in _FAMILIES}


def families(kitchen: bool) -> list[str]:
    """Names of the families of a table, and of those of a kitchen if asked for."""
    return [family.name for family in _FAMILIES if kitchen or not family.kitchen]


def actions_of(kitchen: bool) -> list[str]:
    """Names of the actions of these families, in the order of the list."""
    done = {a for name in families(kitchen) for chain in FAMILIES[name].chains for a in chain}
    return [name for name in ACTIONS if name in done]


KINDS_NOUN: dict[str, str] = {name: kind.noun for name, kind in KINDS.items()}

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.82, 0.14, 0.12), "green": (0.15, 0.62, 0.22), "blue": (0.15, 0.30, 0.80),
    "yellow": (0.92, 0.80, 0.15), "orange": (0.95, 0.50, 0.10), "purple": (0.52, 0.20, 0.65),
    "white": (0.93, 0.93, 0.92), "black": (0.16, 0.16, 0.18), "pink": (0.95, 0.55, 0.68),
    "teal": (0.10, 0.60, 0.60),
}  # fmt: skip
SKINS = (
    (0.94, 0.78, 0.67), (0.87, 0.67, 0.54), (0.76, 0.55, 0.41), (0.55, 0.38, 0.28),
    (0.38, 0.26, 0.20),
)  # fmt: skip
