"""What keeps strangers within bounds. Knows no torch."""
