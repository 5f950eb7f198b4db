"""Episode rows and their statistics."""
