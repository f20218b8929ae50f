"""The database: tables, migrations, and how they are reached."""
