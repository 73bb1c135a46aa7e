"""The unit language model: loading, sampling continuations, log-likelihoods."""
