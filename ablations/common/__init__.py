"""The few things that everything needs: errors, metrics, URLs, and what machine this is."""
