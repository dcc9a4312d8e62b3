"""The serving process: the guard that keeps the decision current, and what requests meet."""
