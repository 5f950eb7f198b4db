"""Tests of libero_eval."""
