"""C99: a source and a header without dependency, made of the TFLite graph of `step`."""
