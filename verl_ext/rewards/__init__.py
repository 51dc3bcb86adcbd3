"""Reward managers of this plugin, registered in veRL's registry by their names."""
