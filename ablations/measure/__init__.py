"""What a module or a network costs: time, memory, complexity and energy. Knows nothing of training."""
