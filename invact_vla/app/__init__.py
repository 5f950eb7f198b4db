"""What joins the packages: the command line, experiments, the report. Nothing imports it."""
