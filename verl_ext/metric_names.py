"""The names of the metrics that this project logs or reads, as loggers show them. Pure.

Quantities that TTRL (`ttrl_utils.py`) names have its names.
"""

VOTE_PREFIX = "vote/"
MAJORITY_RATIO = "vote/majority_ratio"
LABEL_ACCURACY = "vote/label_accuracy"
REWARD_ACCURACY = "vote/reward_accuracy"
GROUND_TRUTH_RATIO = "vote/ground_truth_ratio"
ZERO_ADVANTAGE_RATE = "vote/zero_advantage_rate"
DISTINCT_ANSWERS = "vote/distinct_answers"
NO_ANSWER_RATE = "vote/no_answer_rate"
TIE_RATE = "vote/tie_rate"
ALL_EQUAL_RATE = "vote/all_equal_rate"
ALL_NONE_RATE = "vote/all_none_rate"
TOO_FEW_ANSWERS_RATE = "vote/too_few_answers_rate"
FAILED_RESPONSES = "vote/failed_responses"
SCORING_SECONDS = "vote/scoring_seconds"
POLICY_VERSIONS = "vote/policy_versions"
# Logged by the policy loss `on_policy`.
PROBABILITY_DIFFERENCE = "actor/rollout_probs_diff_mean"

# veRL's own metrics.
PROMPT_LENGTH = "prompt_length/mean"
RESPONSE_LENGTH = "response_length/mean"
MEAN_REWARD = "critic/rewards/mean"
ENTROPY = "actor/entropy"
KL_LOSS = "actor/kl_loss"
GRADIENT_NORM = "actor/grad_norm"
TOTAL_TOKENS = "perf/total_num_tokens"
THROUGHPUT = "perf/throughput"
# Agreement of vLLM and the actor on the probabilities of sampled tokens.
ENGINE_CORRELATION = "training/rollout_actor_probs_pearson_corr"
ENGINE_DIFFERENCE = "training/rollout_probs_diff_mean"
TIMING_PREFIX = "timing_s/"
# The step time excludes the validation after the step (trainer/ppo/v1/trainer_base.py).
STEP_SECONDS = f"{TIMING_PREFIX}step"
VALIDATION_SECONDS = f"{TIMING_PREFIX}testing"
VALIDATION_PREFIX = "val-core/"
# A pattern for any data source, which is group 1, and any number of samples.
VALIDATION_ACCURACY = rf"{VALIDATION_PREFIX}(.+)/acc/mean@\d+"
