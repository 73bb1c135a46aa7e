"""Where a preference pair or a continuation comes from, read back from the tables: every step from the recording on.

    chains = trace("0123-abcdef-0-0123-abcdef-3", Path("artifacts"), experiment)

Nothing is computed anew but the rule's reading, from the values of params.yaml as they are now.
"""

from alignslm.lineage.chain import Chain, Step
from alignslm.lineage.search import LineageError, Speech, speech_of, trace
