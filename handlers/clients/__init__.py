"""The outside world as handlers see it: a folder per provider or kind of them, with our types, time-outs and errors."""
