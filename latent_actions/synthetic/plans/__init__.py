"""How each action is performed: key poses of the hand, one module for each kind of place."""
