"""What an expert can do: one class a kind of step, chained by the recipes."""
