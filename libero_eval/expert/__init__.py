"""A scripted expert for LIBERO tasks: upper bound of the harness and source of data."""

from libero_eval.expert.expert import Expert
from libero_eval.expert.recipes import RECIPES

__all__ = ["RECIPES", "Expert"]
