"""Networks, one architecture a file. They know nothing of losses, data or training."""
