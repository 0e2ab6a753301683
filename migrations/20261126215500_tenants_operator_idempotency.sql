-- What an operator's creating request with an Idempotency-Key made: `idempotency_keys` is a table of tenants.
create table operator_idempotency_keys (
    operation       text not null,
    key             text not null,
    request_sha256  bytea not null,
    resource_id     uuid not null,
    created_at      timestamptz not null default now(),
    primary key (operation, key)
);
grant select, insert on operator_idempotency_keys to tsunami_system;
