"""The runner: takes jobs from a server, does them in boxes, and brings back what came of them."""
