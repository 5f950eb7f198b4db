"""InvAct: an action embedding that follows the action, not the scene or the view."""
