"""Results, contrasts and effects from stored cells; analysis of trained networks."""
