"""Where a preference pair or a continuation comes from, read from the tables: every step since the recording.

    chains = trace("0123-abcdef-0-0123-abcdef-3", Path("artifacts"), experiment)

Only the selection rule's checks are computed, from the current values of params.yaml.
"""

from alignslm.lineage.chain import Chain, Step
from alignslm.lineage.search import LineageError, Speech, speech_of, trace
