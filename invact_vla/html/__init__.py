"""Pages of one file without script: tables, charts, pictures. Knows nothing of the project."""
