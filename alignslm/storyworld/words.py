"""The words of the story world: subjects, six topics and what may happen in each. Plain lower case throughout."""

from typing import Literal, NamedTuple, TypeAlias

Pronoun: TypeAlias = Literal["he", "she", "they"]

PRONOUNS: tuple[Pronoun, ...] = ("he", "she", "they")
SUBJECTS: dict[Pronoun, tuple[str, ...]] = {
    "he": ("tom", "ben", "jack", "paul"),
    "she": ("anna", "kate", "lucy", "mary"),
    "they": ("the boys", "the girls", "two friends", "my cousins"),
}
# Determiners of a singular and of a plural object; no adjective starts with a vowel, so "a" never becomes "an".
DETERMINERS: dict[bool, tuple[str, ...]] = {False: ("a", "the"), True: ("some", "the")}
ADJECTIVES = ("small", "big", "new", "red", "blue", "heavy")
OPENERS = ("then", "later", "soon")
CLOSERS = ("today", "again", "until night")


class Verb(NamedTuple):
    """The two present forms of a verb: `he` or `she` takes the singular, `they` the plural."""

    singular: str
    plural: str

    def form(self, pronoun: Pronoun) -> str:
        """Return the form that agrees with the pronoun."""
        return self.plural if pronoun == "they" else self.singular


class Topic(NamedTuple):
    """What a story of one topic is made of.

    A story reads: SUBJECT verb DETERMINER ADJECTIVE object place / PRONOUN act object tail / OPENER PRONOUN
    ending CLOSER. An object is singular or plural, hence "it" or "them" in the second sentence.
    """

    name: str
    verbs: tuple[Verb, ...]
    singular_objects: tuple[str, ...]
    plural_objects: tuple[str, ...]
    places: tuple[str, ...]
    acts: tuple[Verb, ...]
    tails: tuple[str, ...]
    endings: tuple[tuple[Verb, str], ...]


TOPICS = (
    Topic(
        name="sea",
        verbs=(Verb("finds", "find"), Verb("drags", "drag")),
        singular_objects=("boat", "shell"),
        plural_objects=("nets", "crabs"),
        places=("on the beach", "by the harbour"),
        acts=(Verb("pulls", "pull"), Verb("rinses", "rinse")),
        tails=("under the pier", "in salt water"),
        endings=((Verb("swims", "swim"), "past the rocks"), (Verb("watches", "watch"), "the waves")),
    ),
    Topic(
        name="kitchen",
        verbs=(Verb("cooks", "cook"), Verb("serves", "serve")),
        singular_objects=("cake", "stew"),
        plural_objects=("eggs", "beans"),
        places=("in the kitchen", "for lunch"),
        acts=(Verb("mixes", "mix"), Verb("tastes", "taste")),
        tails=("with fresh butter", "on a silver plate"),
        endings=((Verb("drinks", "drink"), "hot tea"), (Verb("wipes", "wipe"), "the table")),
    ),
    Topic(
        name="school",
        verbs=(Verb("reads", "read"), Verb("copies", "copy")),
        singular_objects=("book", "poem"),
        plural_objects=("letters", "maps"),
        places=("at school", "for the teacher"),
        acts=(Verb("shows", "show"), Verb("explains", "explain")),
        tails=("to the whole class", "to a student"),
        endings=((Verb("solves", "solve"), "the test"), (Verb("asks", "ask"), "one question")),
    ),
    Topic(
        name="farm",
        verbs=(Verb("feeds", "feed"), Verb("leads", "lead")),
        singular_objects=("horse", "goat"),
        plural_objects=("cows", "ducks"),
        places=("behind the barn", "near the field"),
        acts=(Verb("brushes", "brush"), Verb("chases", "chase")),
        tails=("through the gate", "across the grass"),
        endings=((Verb("picks", "pick"), "ripe corn"), (Verb("drives", "drive"), "the tractor")),
    ),
    Topic(
        name="music",
        verbs=(Verb("plays", "play"), Verb("tunes", "tune")),
        singular_objects=("drum", "flute"),
        plural_objects=("bells", "horns"),
        places=("on stage", "at the concert"),
        acts=(Verb("lifts", "lift"), Verb("hears", "hear")),
        tails=("before the show", "during the dance"),
        endings=((Verb("sings", "sing"), "a slow melody"), (Verb("bows", "bow"), "to the crowd")),
    ),
    Topic(
        name="winter",
        verbs=(Verb("grabs", "grab"), Verb("fixes", "fix")),
        singular_objects=("sled", "coat"),
        plural_objects=("boots", "gloves"),
        places=("in winter", "after the storm"),
        acts=(Verb("throws", "throw"), Verb("buries", "bury")),
        tails=("down the icy hill", "into deep snow"),
        endings=((Verb("warms", "warm"), "cold hands"), (Verb("lights", "light"), "the fire")),
    ),
)
