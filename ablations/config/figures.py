"""The figures of a study by name, in the order of a report, with what each shows."""

from __future__ import annotations

# The last three need trained weights.
FIGURES = {
    "forest": "Every contrast with its confidence interval and verdict",
    "variants": "Top-1 and cost of every variant",
    "effects": "Main effects and interactions of crossed factors",
    "tradeoffs": "What a search tried, and which factors mattered",
    "pareto": "Top-1 against speed and memory",
    "complexity": "Top-1 against parameters and GFLOPs, beside published results",
    "promise": "What the multiply-adds promise, and what the clock says",
    "learning_curves": "Training loss and top-1 after every epoch",
    "gates": "The gates of shuffle attention, by stage and class",
    "subfeatures": "What each group of channels knows by itself",
    "cams": "Where networks look: class activation maps on test images",
}
