"""A closed-vocabulary story world: grammar, speech, corpus and the items of the toy benchmarks."""
