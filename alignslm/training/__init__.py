"""Training the unit language model: from scratch, continued, and on preferences."""
