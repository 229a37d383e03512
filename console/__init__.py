"""The command line `pulse`: one file per command, named as the command is; `command.py` says what shape it has."""
