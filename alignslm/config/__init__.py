"""Parameters: typed, frozen, validated in a second, without importing torch."""
