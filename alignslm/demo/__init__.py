"""A page to talk to models with, here or as a Space. It needs the extra `demo`: pip install 'alignslm[demo]'."""
