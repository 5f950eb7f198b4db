"""What a demonstrator can do: one class a kind of step, chained by the recipes."""
