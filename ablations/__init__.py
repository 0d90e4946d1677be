"""The ablation suite: plans, runs and analyses studies of shuffle attention."""
