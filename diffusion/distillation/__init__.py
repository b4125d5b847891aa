"""From many steps to few: students, their upscalers, and fitted solvers."""
