"""Looking into a network: one mini-batch followed through it, and what looks wrong."""
