"""The HTML report of an experiment: one self-contained file, made from run folders."""
