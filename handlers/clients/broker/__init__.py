"""What all brokers have in common: the words, the accounts, the guard around each adapter; and our own paper broker."""
