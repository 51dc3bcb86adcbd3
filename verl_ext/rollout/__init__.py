"""The rollout side of the vote: groups of responses gathered and scored where veRL runs all sessions of a prompt."""
