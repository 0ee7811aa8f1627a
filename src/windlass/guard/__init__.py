"""What stands in front of look-ups: a filter that knows which ids cannot exist."""
