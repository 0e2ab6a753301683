-- An operator's key ends: by itself, or because somebody revoked it.
alter table operator_keys add column expires_at timestamptz;
grant update (revoked_at) on operator_keys to tsunami_system;
