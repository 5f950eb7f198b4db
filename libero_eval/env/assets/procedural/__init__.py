"""LIBERO-10's assets generated from primitives: same names, bodies, joints, sites and sizes."""
