"""Neural networks in NumPy: reads like the equations, and knows nothing of files or terminals."""
