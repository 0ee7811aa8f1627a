"""Tables of products in SQLite and in PostgreSQL, and what others write into them."""
