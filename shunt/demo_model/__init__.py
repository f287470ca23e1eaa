"""Small real and random Llamas on disk, so that everything can be tried without a model hub."""
