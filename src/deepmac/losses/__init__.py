"""What is learned: centre targets, the criterion, and losses for boxes without masks."""
