"""Demonstrations: the scripted expert plays, alone or in turns with a policy, and is recorded."""
