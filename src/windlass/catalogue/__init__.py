"""A catalogue of products whose database is asked only for what may be there."""
