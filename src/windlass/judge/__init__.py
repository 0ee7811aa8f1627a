"""The judge: what a submission is measured by, and what comes of it."""
