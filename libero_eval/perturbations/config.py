"""Which perturbations, and how strong. The defaults change nothing."""

from dataclasses import dataclass, fields

from libero_eval.perturbations.instructions import WORDINGS

LAYOUTS = ("init_states", "random")


@dataclass(frozen=True, kw_only=True)
class PerturbationsConfig:
    """Perturbations of every episode; what an episode gets follows from (seed, task, init state)."""

    camera: float = 0.0  # the third-person camera moves by up to so many meters, same target
    light: float = 0.0  # 0..1: lamps dim or brighten by up to this share and tilt alike
    textures: float = 0.0  # 0..1: table, floor and walls are tinted and exchange their textures
    distractors: int = 0  # 0..6 extra solid things that stand in free places of the table
    robot_pose: float = 0.0  # spread of the arm's joints at the start, rad (LIBERO's own: 0.02)
    # init_states | random: object poses drawn anew by LIBERO's rules
    layout: str = "init_states"
    wording: str = "as_is"  # as_is, blank, shuffled (another task's), reworded, dot
    seed: int = 0  # of all axes

    def __post_init__(self) -> None:
        for name, most in (("camera", 0.5), ("light", 1.0), ("textures", 1.0), ("robot_pose", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be in [0, {most:g}], got {getattr(self, name)}")
        if not 0 <= self.distractors <= 6:
            raise ValueError(f"distractors must be 0..6, got {self.distractors}")
        for name, known in (("layout", LAYOUTS), ("wording", WORDINGS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )

    @property
    def label(self) -> str:
        """What is changed, e.g. "camera 0.1, wording blank, axes seed 0"; empty if nothing is."""
        default = PerturbationsConfig()
        changed = [
            f"{f.name} {getattr(self, f.name)}"
            for f in fields(self)
            if f.name != "seed" and getattr(self, f.name) != getattr(default, f.name)
        ]
        return ", ".join([*changed, f"axes seed {self.seed}"]) if changed else ""
