"""A closed-vocabulary story world: grammar, speech, corpus and the items of the toy benchmarks."""


class StoryWorldError(ValueError):
    """The story world cannot make what was requested: speech, a voice, enough words, stories or items."""
