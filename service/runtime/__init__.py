"""What every layer uses: clock, errors, back-off, retries, bounded concurrency and caches."""
