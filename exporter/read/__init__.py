"""From a file, which a stranger may have written, to a Keras model, or a refusal."""
