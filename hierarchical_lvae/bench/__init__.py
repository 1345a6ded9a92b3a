"""What a step costs, and what the work around it costs."""
