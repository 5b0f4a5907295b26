"""Networks that people really use, at sizes that a microcontroller can hold, built from scratch with random weights."""
