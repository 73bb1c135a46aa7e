"""A closed-vocabulary story world: grammar, speech, corpus and the items of the toy benchmarks."""


class StoryWorldError(ValueError):
    """The story world cannot give what was asked for: speech, a voice, enough words, stories or items."""
