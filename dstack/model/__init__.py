"""What dstack means: values and pure functions. No I/O, no clock, no randomness."""
