"""The REST server: tables and functions of the database as PostgREST 14 offers them."""
