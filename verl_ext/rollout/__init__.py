"""The rollout side of the vote: gathers and scores groups of responses where veRL runs the sessions of a prompt."""
