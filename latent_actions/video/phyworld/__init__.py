"""PhyWorld's three scenarios in closed form: uniform motion, parabola, collision."""
