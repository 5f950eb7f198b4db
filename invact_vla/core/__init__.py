"""What every stage stands on: errors, border types, atomic files, run folders. Imports no other room."""
