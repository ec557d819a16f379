"""How messages get out and results come in: one module a broker or backend."""
