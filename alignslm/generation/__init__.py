"""Speech continuation with an experiment's models: from a recording to continuations, as the pipeline samples them.

    from alignslm.generation import SpokenLM
    takes = SpokenLM.load("r1").generate("prompt.wav", num_continuations=3)
    takes[0].save("continuation.wav"); print(takes[0].text)

`SpokenLM.load` takes the name of a checkpoint of the experiment, a folder, or a Hub repository. To compare several,
open a `SpeechPipeline`: encoder, vocoder and ASR model are then loaded once for all of them.
"""

from alignslm.generation.prompt import PlayError, Prompt
from alignslm.generation.studio import SpeechPipeline, SpokenLM
from alignslm.generation.take import Continuation
