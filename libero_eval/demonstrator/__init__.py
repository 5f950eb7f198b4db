"""A scripted demonstrator for LIBERO tasks: upper bound of the harness and source of data."""

from libero_eval.demonstrator.demonstrator import Demonstrator
from libero_eval.demonstrator.recipes import RECIPES

__all__ = ["RECIPES", "Demonstrator"]
