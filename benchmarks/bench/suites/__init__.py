"""One module a benchmark; each has `run(options)`, which measures, prints and writes its result."""
