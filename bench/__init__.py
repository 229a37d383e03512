"""How fast the job system is, measured beside raw SQL on the same machine in the same minute."""
