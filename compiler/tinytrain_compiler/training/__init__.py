"""What may learn, and how: schemes, the backward pass, the loss, updates (NumPy reference)."""
