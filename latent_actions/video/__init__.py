"""Human video: sources on disk, clip arithmetic, decoding, a memory-mapped store, and a
generator.
"""
