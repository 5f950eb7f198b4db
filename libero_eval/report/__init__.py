"""From rows to statements: `invact libero report`, `compare` and `plan`."""
