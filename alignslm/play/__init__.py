"""A model that talks: speech in, continuations out, as the pipeline would draw them.

    from alignslm.play import Speaker
    takes = Speaker.load("r1").continuations("prompt.wav", draws=3)
    takes[0].save("continuation.wav"); print(takes[0].text)

`Speaker.load` takes the name of a checkpoint of the experiment, a folder, or a repository of the Hub. To compare
several, open a `Studio` once: encoder, vocoder and recogniser are then loaded once for all of them.
"""

from alignslm.play.prompt import PlayError, Prompt
from alignslm.play.studio import Speaker, Studio
from alignslm.play.take import Take
