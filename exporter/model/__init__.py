"""What a Keras model takes, gives and carries: found by running it."""
