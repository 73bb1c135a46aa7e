"""Speech continuation with an experiment's models: from a recording to continuations, as the pipeline samples them.

    from alignslm.play import Speaker
    takes = Speaker.load("r1").continuations("prompt.wav", draws=3)
    takes[0].save("continuation.wav"); print(takes[0].text)

`Speaker.load` takes the name of a checkpoint of the experiment, a folder, or a Hub repository. To compare several, open
a `Studio`: encoder, vocoder and ASR model are then loaded once for all of them.
"""

from alignslm.play.prompt import PlayError, Prompt
from alignslm.play.studio import Speaker, Studio
from alignslm.play.take import Take
