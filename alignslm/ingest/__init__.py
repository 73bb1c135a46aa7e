"""From a folder of recordings to a corpus, and to an experiment that fits the amount of speech."""
