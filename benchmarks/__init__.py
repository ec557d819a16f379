"""What bridgetask costs, next to everything that its users would pick instead."""
