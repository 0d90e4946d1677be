"""A study on its way: what is trained next, by whom, and what is made of what comes back."""
