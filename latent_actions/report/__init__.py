"""Does a code mean an action? A report of label stores, before anything is trained on them."""
