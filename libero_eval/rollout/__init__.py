"""Episodes of a policy in LIBERO: the command, the loop, early stopping, serving, merging."""
