-- A sign-in outlives the skill that it was for, until its provider was told that the tokens are used no more.
alter table oauth_grants alter column skill_config_id drop not null;
-- What was agreed to goes with the skill's configuration.
grant delete on oauth_clients to tsunami_app;
