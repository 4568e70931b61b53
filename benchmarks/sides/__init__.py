"""What is measured: each side in a process of its own, driven by `sides.drive` with the same code."""
