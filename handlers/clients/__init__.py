"""The outside world as handlers see it: one small client per provider, with our types, time-outs and errors."""
