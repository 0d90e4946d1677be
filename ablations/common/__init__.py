"""What all packages use: errors, metrics, URLs, and a description of the machine."""
