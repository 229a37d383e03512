"""Who may do what, and what a hostile word can do: the database, the doors, and what is printed."""
