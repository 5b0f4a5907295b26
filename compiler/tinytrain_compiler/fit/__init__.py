"""What a model needs of a board, whether it fits, and what would."""
