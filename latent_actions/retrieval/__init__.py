"""Retrieval: precision@10 across scenes and views, its levels, and the evaluation of an encoder."""
