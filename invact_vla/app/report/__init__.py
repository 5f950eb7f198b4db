"""The HTML report of a ladder: one self-contained file, made from run folders."""
