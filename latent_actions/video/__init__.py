"""Human video: sources on disk, the index of one, and a store of decoded clips."""
