-- Hosts look at their start, and `tsunami doctor` at any time, whether the schema is theirs.
grant select on _sqlx_migrations to tsunami_app;
