"""A person's own pictures of digits: read, prepared as MNIST was, recognised."""
