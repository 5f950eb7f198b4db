"""Colors and surface pictures of a pack. Seed 0 is the standard look; other seeds vary it."""

import colorsys

import numpy as np

Color = tuple[float, float, float]

# Standard colors (red, green, blue in 0..1), chosen to be distinguished at 64 pixels.
COLOURS: dict[str, Color] = {
    "soup": (0.16, 0.30, 0.70),
    "soup_label": (0.95, 0.80, 0.15),
    "tomato": (0.80, 0.10, 0.08),
    "tomato_label": (0.10, 0.50, 0.18),
    "tin": (0.72, 0.73, 0.75),
    "cheese": (0.62, 0.72, 0.90),
    "cheese_label": (0.12, 0.22, 0.60),
    "ketchup": (0.72, 0.16, 0.06),
    "ketchup_label": (0.95, 0.78, 0.20),
    "cap": (0.92, 0.92, 0.90),
    "juice": (0.96, 0.72, 0.10),
    "juice_label": (0.16, 0.45, 0.16),
    "milk": (0.94, 0.94, 0.94),
    "milk_label": (0.85, 0.12, 0.12),
    "butter": (0.80, 0.25, 0.08),
    "butter_label": (0.98, 0.82, 0.25),
    "pudding": (0.22, 0.11, 0.07),
    "pudding_label": (0.86, 0.62, 0.30),
    "basket": (0.72, 0.50, 0.26),
    "plate": (0.90, 0.89, 0.85),
    "pan": (0.09, 0.10, 0.10),
    "pan_rim": (0.30, 0.33, 0.32),
    "bowl": (0.06, 0.06, 0.07),
    "steel": (0.62, 0.64, 0.66),
    "rubber": (0.07, 0.07, 0.07),
    "porcelain": (0.97, 0.97, 0.98),
    "red_mug": (0.72, 0.07, 0.07),
    "yellow_mug": (0.90, 0.74, 0.12),
    "book": (0.07, 0.07, 0.09),
    "paper": (0.93, 0.92, 0.87),
    "bottle": (0.03, 0.11, 0.05),
    "bottle_label": (0.85, 0.80, 0.65),
    "cork": (0.70, 0.45, 0.25),
    "caddy": (0.40, 0.28, 0.18),
    "rack_board": (0.86, 0.66, 0.40),
    "rack_stand": (0.42, 0.15, 0.09),
    "stove": (0.36, 0.36, 0.36),
    "burner": (0.22, 0.22, 0.23),
    "knob": (0.08, 0.08, 0.08),
    "cabinet": (0.58, 0.58, 0.57),
    "handle": (0.35, 0.36, 0.38),
    "oven": (0.10, 0.10, 0.11),
    "oven_glass": (0.36, 0.38, 0.40),
    "kitchen_table": (0.84, 0.74, 0.62),
    "living_table": (0.32, 0.18, 0.13),
    "study_table": (0.62, 0.42, 0.22),
    "plaster": (0.66, 0.66, 0.65),
    "linen": (0.58, 0.57, 0.42),
    "planks": (0.55, 0.40, 0.26),
    "tiles": (0.55, 0.55, 0.56),
    "worktop": (0.16, 0.16, 0.17),
    "cupboard": (0.34, 0.40, 0.42),
    "leaves": (0.16, 0.40, 0.12),
    "shelf": (0.80, 0.81, 0.82),
    "bbq": (0.30, 0.09, 0.05),
    "bbq_label": (0.93, 0.60, 0.12),
    "dressing": (0.86, 0.84, 0.66),
    "dressing_label": (0.30, 0.55, 0.20),
    "new_dressing": (0.78, 0.40, 0.18),
    "new_dressing_label": (0.95, 0.90, 0.75),
    "cookies": (0.20, 0.42, 0.75),
    "cookies_label": (0.92, 0.78, 0.52),
    "ramekin": (0.93, 0.92, 0.90),
    "white_bowl": (0.95, 0.95, 0.93),
    "tray": (0.62, 0.43, 0.24),
    "dark_wood": (0.30, 0.17, 0.10),
    "yellow_book": (0.88, 0.72, 0.14),
    "table_top": (0.66, 0.46, 0.30),
}


class Style:
    """Colors of one pack; a pure function of the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def rng(self, name: str) -> np.random.Generator:
        """The random stream of one named thing."""
        return np.random.default_rng([self.seed, *name.encode()])

    def color(self, name: str) -> Color:
        """The color of a named surface: standard for seed 0, else shifted in hue and brightness.

        Names of objects keep telling the truth for small shifts (a red mug stays reddish): hue by
        at most 0.04 of a turn, saturation and brightness by at most 20 %.
        """
        base = COLOURS[name]
        if self.seed == 0:
            return base
        hue, saturation, value = colorsys.rgb_to_hsv(*base)
        shift = self.rng(name).uniform(-1, 1, size=3)
        hue = (hue + 0.04 * shift[0]) % 1.0
        saturation = min(1.0, saturation * (1 + 0.2 * shift[1]))
        value = min(1.0, value * (1 + 0.2 * shift[2]))
        return colorsys.hsv_to_rgb(hue, saturation, value)

    def rgba(self, name: str, alpha: float = 1.0) -> tuple[float, float, float, float]:
        """`color` with an alpha."""
        return (*self.color(name), alpha)
