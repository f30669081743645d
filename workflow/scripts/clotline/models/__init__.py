"""Networks, their training, features, activation maps and the bundle."""
