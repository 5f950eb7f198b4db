"""Whether codes are used, watched while a model trains and judged after it."""
