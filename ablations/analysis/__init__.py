"""From stored cells to results, contrasts and effects; and trained networks looked at."""
