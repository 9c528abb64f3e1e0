"""What a run needs of a device that need not be at hand: memory, operations and time."""
