"""From a folder of anybody's recordings to a corpus, and to the experiment that fits the amount of speech."""
