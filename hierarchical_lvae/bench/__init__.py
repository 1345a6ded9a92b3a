"""What a step costs, and what surrounds it."""
