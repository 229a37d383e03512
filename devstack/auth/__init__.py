"""Auth, as little as a front end needs: people with e-mail and password, sessions, tokens that RLS believes."""
