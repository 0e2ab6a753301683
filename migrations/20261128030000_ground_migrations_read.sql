-- Hosts look at their start, and `tsunami doctor` at any time, whether the schema is theirs. (The table is sqlx's, and
-- missing where these files are run without it.)
do $$
begin
    if to_regclass('_sqlx_migrations') is not null then
        grant select on _sqlx_migrations to tsunami_app;
    end if;
end
$$;
