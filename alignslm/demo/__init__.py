"""A page to talk to models, on this machine or as a Space. Needs the extra `demo`: pip install 'alignslm[demo]'."""
