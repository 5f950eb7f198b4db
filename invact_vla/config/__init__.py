"""Commands from the command line and YAML: parsing, help, lists, errors in one line."""
